//! The functions of `sandbox_host.h`, which documents them.
//!
//! Each function checks the process first, then its pointers, and catches panics. `library` has no pointers.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sandbox_bridge::{Fault, INVALID};

use crate::library::{self, Call, Callback, Told};

const INVALID_STATUS: c_int = -1;
const PENDING: c_int = 0;
const OK: c_int = 1;
const FAILED: c_int = 2;

/// A callback of the caller.
type Function = unsafe extern "C" fn(call: u64, context: *mut c_void);

thread_local! {
    /// The error of the last function that failed in this thread.
    static LAST: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// A pointer that belongs to the caller. This library does not follow it.
#[derive(Clone, Copy)]
struct Context(*mut c_void);

// SAFETY: the pointer is only stored and given back, and the header says that callbacks run in another thread.
unsafe impl Send for Context {}

/// Runs a function of the library. On a fault or a panic, stores the error and returns `failed`.
fn guard<T>(failed: T, work: impl FnOnce() -> Result<T, Fault>) -> T {
    let result = library::check_process().and_then(|()| {
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(Fault::new("internal", "the library has an error: a function panicked")))
    });
    result.unwrap_or_else(|fault| {
        let text = CString::new(fault.json()).unwrap_or_default();
        // While a thread ends, it has no such storage any more.
        let _ = LAST.try_with(|last| *last.borrow_mut() = Some(text));
        failed
    })
}

/// Converts a time of the caller. A negative time means no limit.
fn limit(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}

/// Copies a text of the caller.
///
/// # Safety
///
/// `text` is NULL or the address of a text that ends with NUL.
unsafe fn text(name: &str, text: *const c_char) -> Result<String, Fault> {
    if text.is_null() {
        return Err(Fault::new(INVALID, format!("`{name}` is NULL")));
    }
    // SAFETY: by the contract of this function.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(str::to_owned).map_err(|_| Fault::new(INVALID, format!("`{name}` is not UTF-8")))
}

/// Copies what the caller wants to call.
///
/// # Safety
///
/// `method` and `arguments` are NULL or addresses of texts that end with NUL. `data` is NULL or the address of `size` bytes.
unsafe fn request(
    method: *const c_char,
    arguments: *const c_char,
    data: *const c_void,
    size: usize,
) -> Result<(String, String, Bytes), Fault> {
    // SAFETY: by the contract of this function.
    let method = unsafe { text("method", method) }?;
    let arguments = if arguments.is_null() {
        String::new()
    } else {
        // SAFETY: by the contract of this function.
        unsafe { text("arguments", arguments) }?
    };
    if size == 0 {
        return Ok((method, arguments, Bytes::new()));
    }
    if data.is_null() {
        return Err(Fault::new(INVALID, format!("`data` is NULL with a size of {size}")));
    }
    if isize::try_from(size).is_err() {
        return Err(Fault::new(INVALID, "`size` is larger than the address space"));
    }
    // SAFETY: by the contract of this function, and the size was checked.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
    Ok((method, arguments, Bytes::copy_from_slice(data)))
}

/// Stores a size for the caller.
///
/// # Safety
///
/// `to` is NULL or the address of a size that this thread may write.
unsafe fn store(to: *mut usize, size: usize) {
    if !to.is_null() {
        // SAFETY: by the contract of this function.
        unsafe { to.write(size) };
    }
}

fn completed(call: &Call) -> Result<&library::Outcome, Fault> {
    call.outcome().ok_or_else(|| Fault::new("conflict", "the call is not completed"))
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("the version contains NUL"),
    };
    VERSION.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_last_error() -> *const c_char {
    let last = LAST.try_with(|last| last.borrow().as_ref().map(|text| text.as_ptr()));
    last.ok().flatten().unwrap_or(std::ptr::null())
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_host_open() -> u64 {
    guard(0, library::open)
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_host_close(host: u64) -> c_int {
    guard(INVALID_STATUS, || library::close(host).map(|()| OK))
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_host_descriptor(host: u64) -> c_int {
    guard(-1, || library::host(host)?.descriptor())
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_host_next(host: u64, timeout_ms: i64) -> u64 {
    guard(0, || {
        let next = library::host(host)?.next(limit(timeout_ms))?;
        next.ok_or_else(|| Fault::new("timed-out", "no call was completed in this time"))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sandbox_call_start(
    host: u64,
    method: *const c_char,
    arguments: *const c_char,
    data: *const c_void,
    size: usize,
) -> u64 {
    guard(0, || {
        // SAFETY: the header demands it of the caller.
        let request = unsafe { request(method, arguments, data, size) };
        library::start(host, request, Told::Nothing, 0).map(|(number, _)| number)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sandbox_call_start_queued(
    host: u64,
    method: *const c_char,
    arguments: *const c_char,
    data: *const c_void,
    size: usize,
    context: *mut c_void,
) -> u64 {
    guard(0, || {
        // SAFETY: the header demands it of the caller.
        let request = unsafe { request(method, arguments, data, size) };
        library::start(host, request, Told::Queue, context as usize).map(|(number, _)| number)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sandbox_call_start_callback(
    host: u64,
    method: *const c_char,
    arguments: *const c_char,
    data: *const c_void,
    size: usize,
    callback: Option<Function>,
    context: *mut c_void,
) -> u64 {
    guard(0, || {
        let Some(callback) = callback else { return Err(Fault::new(INVALID, "`callback` is NULL")) };
        // SAFETY: the header demands it of the caller.
        let request = unsafe { request(method, arguments, data, size) };
        let passed = Context(context);
        let callback: Callback = Box::new(move |call| {
            let Context(context) = { passed };
            // SAFETY: the header demands a function that can be called with these arguments until the call is freed.
            unsafe { callback(call, context) }
        });
        library::start(host, request, Told::Callback(callback), context as usize).map(|(number, _)| number)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sandbox_call_run(
    host: u64,
    method: *const c_char,
    arguments: *const c_char,
    data: *const c_void,
    size: usize,
) -> u64 {
    guard(0, || {
        // SAFETY: the header demands it of the caller.
        let request = unsafe { request(method, arguments, data, size) };
        let (number, call): (u64, Arc<Call>) = library::start(host, request, Told::Nothing, 0)?;
        call.wait(None);
        Ok(number)
    })
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_call_wait(call: u64, timeout_ms: i64) -> c_int {
    guard(INVALID_STATUS, || {
        let call = library::call(call)?;
        call.wait(limit(timeout_ms));
        Ok(status(&call))
    })
}

fn status(call: &Call) -> c_int {
    match call.outcome() {
        None => PENDING,
        Some(outcome) if outcome.good => OK,
        Some(_) => FAILED,
    }
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_call_status(call: u64) -> c_int {
    guard(INVALID_STATUS, || Ok(status(&*library::call(call)?)))
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_call_cancel(call: u64) -> c_int {
    guard(INVALID_STATUS, || {
        library::call(call)?.cancel();
        Ok(OK)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sandbox_call_json(call: u64, size: *mut usize) -> *const c_char {
    guard(std::ptr::null(), || {
        let call = library::call(call)?;
        let json = &completed(&call)?.json;
        // SAFETY: the header demands it of the caller.
        unsafe { store(size, json.as_bytes().len()) };
        // The table of calls keeps the text until the call is freed.
        Ok(json.as_ptr())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sandbox_call_value(call: u64, pointer: *const c_char, size: *mut usize) -> *const c_char {
    guard(std::ptr::null(), || {
        // SAFETY: the header demands it of the caller.
        let pointer = unsafe { text("pointer", pointer) }?;
        let call = library::call(call)?;
        completed(&call)?;
        let found = call.value(&pointer, |bytes| (bytes.as_ptr().cast::<c_char>(), bytes.len() - 1));
        let Some((value, length)) = found else {
            return Err(Fault::new("not-found", format!("the result has no value at {pointer:?}")));
        };
        // SAFETY: the header demands it of the caller.
        unsafe { store(size, length) };
        Ok(value)
    })
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_call_part_count(call: u64) -> usize {
    guard(0, || Ok(completed(&*library::call(call)?)?.parts.len()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sandbox_call_part(call: u64, index: usize, size: *mut usize) -> *const c_void {
    guard(std::ptr::null(), || {
        let call = library::call(call)?;
        let parts = &completed(&call)?.parts;
        let Some(part) = parts.get(index) else {
            return Err(Fault::new("not-found", format!("the call has {} parts", parts.len())));
        };
        // SAFETY: the header demands it of the caller.
        unsafe { store(size, part.len()) };
        Ok(part.as_ptr().cast())
    })
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_call_context(call: u64) -> *mut c_void {
    guard(std::ptr::null_mut(), || Ok(library::call(call)?.context as *mut c_void))
}

#[unsafe(no_mangle)]
extern "C" fn sandbox_call_free(call: u64) -> c_int {
    guard(INVALID_STATUS, || library::free(call).map(|()| OK))
}
