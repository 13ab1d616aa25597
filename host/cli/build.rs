//! Makes the program smaller when it is linked.
//!
//! It is stripped. The profile would do that, but cargo ignores `strip` for a package that has settings of its own in the
//! profile, such as this one's `opt-level`. Functions with the same code are merged, which the default linker of this
//! target can do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A build with line tables, such as the profile `lines`, keeps its symbols.
    if std::env::var("DEBUG").is_ok_and(|debug| debug == "false") {
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
        // rustc links with its own lld on this target only.
        if std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu") {
            println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        }
    }
}
