//! Strips the program. The profile would do that, but cargo ignores `strip` for a package that has settings of its own in
//! the profile, such as this one's `opt-level`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A build with line tables, such as the profile `lines`, keeps its symbols.
    if std::env::var("DEBUG").is_ok_and(|debug| debug == "false") {
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
    }
}
