//! Sets a flag of the linker.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Node unloads a native module when the last thread ends that loaded it. The threads of this one would then run code
    // that is gone.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
