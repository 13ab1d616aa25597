//! The emulator's program: an inner role, or nothing yet.

fn main() {
    modal_emulator::child_entry();
}
