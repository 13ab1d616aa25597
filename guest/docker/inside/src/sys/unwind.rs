//! Functions instead of those of the unwinder. The standard library asks for a list of the stack frames when a panic is reported
//! with `RUST_BACKTRACE`. This program has no debug information, so such a report would name nothing. With an empty list, the
//! linker leaves out the readers of debug information and of unwind tables, which were two fifths of the program.
//!
//! The program is compiled with `panic = "abort"`, so nothing unwinds its stack, and the other functions are never called. They
//! have to be here because the linker would take them from the same files of the unwinder as the first one.

use std::ffi::{c_int, c_void};

/// Calls `callback` for no frame, and returns `_URC_NO_REASON`.
// SAFETY: the name and the type are those of the function that it replaces, and no other definition of it is linked.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_callback: *const c_void, _data: *mut c_void) -> c_int {
    0
}

macro_rules! never_called {
    ($($name:ident)*) => {$(
        // SAFETY: no other definition of the function is linked, and it is never called.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

never_called! {
    _Unwind_DeleteException _Unwind_FindEnclosingFunction _Unwind_GetCFA _Unwind_GetDataRelBase _Unwind_GetIP _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_RaiseException _Unwind_Resume
    _Unwind_SetGR _Unwind_SetIP
}
