words() { tr '\n' ' ' < "$1" | sed 's/ $//'; }
