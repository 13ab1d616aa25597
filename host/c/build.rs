//! Sets the name of the library, and keeps it loaded: its threads would run code that `dlclose` has removed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsandbox_host.so,-z,nodelete");
    }
}
