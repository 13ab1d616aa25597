//! The C interface of Node.
//!
//! Each JavaScript thread that loads the module has an environment (`env`), which may only be used by this thread. A result
//! reaches the thread through a *thread-safe function*, which queues it and wakes the event loop. Node deletes that function
//! when the environment ends, so [`Outlet`] forgets it before.

use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use napi_sys::{
    Status, ThreadsafeFunctionCallMode, ValueType, napi_callback, napi_callback_info, napi_env,
    napi_threadsafe_function, napi_value,
};

use crate::channel::{Channel, Completion};

/// The version of the interface that is used here. Node 20 has it.
const INTERFACE_VERSION: i32 = 8;

/// Calls a function of the interface. An unexpected status is an error.
macro_rules! napi {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: The environment is that of this thread, because it was received as an argument in this call. The pointers
        // refer to variables of this function that live until the call returns. The values were created in this call.
        match unsafe { napi_sys::$function($($argument),*) } {
            Status::napi_ok => Ok(()),
            status => Err(Thrown(format!("{} failed with status {status}", stringify!($function)))),
        }
    }};
}

/// The message of an error that is thrown into JavaScript.
struct Thrown(String);

type Result<T> = std::result::Result<T, Thrown>;

/// Sends results to a JavaScript thread, until its environment ends.
struct Outlet(Mutex<Option<Waker>>);

/// A thread-safe function. All threads may call it as long as its environment exists.
struct Waker(napi_threadsafe_function);

// SAFETY: Thread-safe functions are made for use by other threads.
unsafe impl Send for Waker {}

impl Outlet {
    /// Queues a result. It is dropped if the environment has ended.
    fn send(&self, completion: Completion) {
        // Locked during the call, so that the environment cannot end meanwhile.
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Waker(function)) = &*waker else { return };
        let data = Box::into_raw(Box::new(completion));
        let mode = ThreadsafeFunctionCallMode::nonblocking;
        // SAFETY: The function exists until `detach` has taken it. It takes over the result if it returns `napi_ok`.
        if unsafe { napi_sys::napi_call_threadsafe_function(*function, data.cast(), mode) } != Status::napi_ok {
            // SAFETY: The box was made above, and was not taken over.
            drop(unsafe { Box::from_raw(data) });
        }
    }

    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What one environment has: the data of its functions and of the hook for its end.
struct Attached {
    channel: Arc<Channel>,
    outlet: Arc<Outlet>,
}

/// Tells Node which version of the interface the module uses.
#[unsafe(no_mangle)]
extern "C" fn node_api_module_get_api_version_v1() -> i32 {
    INTERFACE_VERSION
}

/// Fills the exports of the module. Node calls this once for each environment.
#[unsafe(no_mangle)]
extern "C" fn napi_register_module_v1(env: napi_env, exports: napi_value) -> napi_value {
    guarded(env, || {
        set(env, exports, "start", function(env, Some(start), null_mut())?)?;
        set(env, exports, "compileComponent", function(env, Some(compile_component), null_mut())?)?;
        set(env, exports, "compileApart", function(env, Some(compile_apart), null_mut())?)?;
        Ok(exports)
    })
}

/// `start(settle)`: creates a channel and returns an object with its functions. `settle(id, succeeded, json, parts)` is called with
/// the result of each call. Pending calls do not keep the event loop alive.
extern "C" fn start(env: napi_env, info: napi_callback_info) -> napi_value {
    guarded(env, || {
        let ([settle], _) = arguments(env, info)?;
        let name = text(env, "sandbox-host")?;
        let mut waker = null_mut();
        napi!(napi_create_threadsafe_function(
            env,
            settle,
            null_mut(),
            name,
            0,
            1,
            null_mut(),
            None,
            null_mut(),
            Some(deliver),
            &mut waker,
        ))?;
        napi!(napi_unref_threadsafe_function(env, waker))?;
        let outlet = Arc::new(Outlet(Mutex::new(Some(Waker(waker)))));
        let sink = Arc::clone(&outlet);
        let channel = Channel::new(Box::new(move |completion| sink.send(completion)));
        let data = Box::into_raw(Box::new(Attached { channel, outlet })).cast();
        // Hooks run in the opposite order, so this one runs before that of the thread-safe function.
        napi!(napi_add_env_cleanup_hook(env, Some(detach), data))?;
        let object = object(env)?;
        set(env, object, "call", function(env, Some(call), data)?)?;
        set(env, object, "cancel", function(env, Some(cancel), data)?)?;
        set(env, object, "close", function(env, Some(close), data)?)?;
        Ok(object)
    })
}

/// The hook for the end of an environment: cancels its calls and closes its objects.
extern "C" fn detach(data: *mut c_void) {
    // SAFETY: `start` made the box for this hook. JavaScript functions that use it cannot run anymore.
    let attached = unsafe { Box::from_raw(data.cast::<Attached>()) };
    attached.outlet.close();
    let _ = catch_unwind(AssertUnwindSafe(|| attached.channel.close()));
}

/// `call(id, method, json, data)`: starts a call. The data is a view of bytes, or undefined. The bytes are copied.
extern "C" fn call(env: napi_env, info: napi_callback_info) -> napi_value {
    guarded(env, || {
        let ([id, method, json, data], attached) = arguments(env, info)?;
        let (id, method, json) = (number(env, id)?, string(env, method)?, string(env, json)?);
        attached_to(attached)?.channel.call(id, method, json, bytes(env, data)?).map_err(Thrown)?;
        Ok(null_mut())
    })
}

/// `cancel(id)`: cancels a call.
extern "C" fn cancel(env: napi_env, info: napi_callback_info) -> napi_value {
    guarded(env, || {
        let ([id], attached) = arguments(env, info)?;
        attached_to(attached)?.channel.cancel(number(env, id)?);
        Ok(null_mut())
    })
}

/// `close()`: cancels all calls, closes all objects, and refuses further calls. No result is delivered anymore.
extern "C" fn close(env: napi_env, info: napi_callback_info) -> napi_value {
    guarded(env, || {
        let ([], attached) = arguments(env, info)?;
        let attached = attached_to(attached)?;
        attached.outlet.close();
        attached.channel.close();
        Ok(null_mut())
    })
}

/// `compileComponent()`: compiles the component on standard input and returns the exit code for the process.
extern "C" fn compile_component(env: napi_env, _: napi_callback_info) -> napi_value {
    guarded(env, || {
        let mut value = null_mut();
        napi!(napi_create_int32(env, sandbox_host::compile_child(), &mut value))?;
        Ok(value)
    })
}

/// `compileApart(program, script)`: has components compiled by a separate process of Node, so that the kernel limits memory
/// and time of the compiler. Only the first call has an effect.
extern "C" fn compile_apart(env: napi_env, info: napi_callback_info) -> napi_value {
    guarded(env, || {
        let ([program, script], _) = arguments(env, info)?;
        let (program, script) = (string(env, program)?, string(env, script)?);
        sandbox_host::compile_apart(move || {
            let mut command = Command::new(&program);
            // No influence of NODE_OPTIONS and the like. Some builds of Node find their shared library by LD_LIBRARY_PATH, and
            // Electron behaves like Node with the other variable.
            command.arg(&script).env_clear().env("ELECTRON_RUN_AS_NODE", "1");
            command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
            command
        });
        Ok(null_mut())
    })
}

/// Passes a result to the function `settle`. Node calls this in the thread of the environment, or with null while it ends.
extern "C" fn deliver(env: napi_env, settle: napi_value, _context: *mut c_void, data: *mut c_void) {
    // SAFETY: `Outlet::send` made the box for this call.
    let completion = unsafe { Box::from_raw(data.cast::<Completion>()) };
    if env.is_null() || settle.is_null() {
        return;
    }
    guarded(env, || {
        let mut parts = null_mut();
        napi!(napi_create_array_with_length(env, completion.parts.len(), &mut parts))?;
        for (index, part) in (0..).zip(&completion.parts) {
            let mut buffer = null_mut();
            napi!(napi_create_buffer_copy(env, part.len(), part.as_ptr().cast(), null_mut(), &mut buffer))?;
            napi!(napi_set_element(env, parts, index, buffer))?;
        }
        let (mut id, mut succeeded, mut this) = (null_mut(), null_mut(), null_mut());
        napi!(napi_create_double(env, completion.id as f64, &mut id))?;
        napi!(napi_get_boolean(env, completion.succeeded, &mut succeeded))?;
        napi!(napi_get_undefined(env, &mut this))?;
        let arguments = [id, succeeded, text(env, &completion.json)?, parts];
        napi!(napi_call_function(env, this, settle, arguments.len(), arguments.as_ptr(), null_mut()))?;
        Ok(null_mut())
    });
}

/// Runs the body of a function. An error or a panic is thrown into JavaScript.
fn guarded(env: napi_env, body: impl FnOnce() -> Result<napi_value>) -> napi_value {
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(Thrown(message))) => message,
        Err(_) => "the native module failed unexpectedly".to_owned(),
    };
    let mut pending = false;
    let _ = napi!(napi_is_exception_pending(env, &mut pending));
    if !pending {
        let message = CString::new(message).unwrap_or_default();
        let _ = napi!(napi_throw_error(env, null(), message.as_ptr()));
    }
    null_mut()
}

/// Returns the arguments of a call, undefined for missing ones, and the data of the function.
fn arguments<const COUNT: usize>(
    env: napi_env,
    info: napi_callback_info,
) -> Result<([napi_value; COUNT], *mut c_void)> {
    let (mut values, mut count, mut data) = ([null_mut(); COUNT], COUNT, null_mut());
    napi!(napi_get_cb_info(env, info, &mut count, values.as_mut_ptr(), null_mut(), &mut data))?;
    Ok((values, data))
}

/// Returns the data of the functions of a channel.
fn attached_to<'a>(data: *mut c_void) -> Result<&'a Attached> {
    // SAFETY: The data of the functions that use this is a box of this type, which lives as long as they can be called.
    unsafe { data.cast::<Attached>().as_ref() }.ok_or_else(|| Thrown("the function has no data".to_owned()))
}

fn object(env: napi_env) -> Result<napi_value> {
    let mut value = null_mut();
    napi!(napi_create_object(env, &mut value))?;
    Ok(value)
}

fn function(env: napi_env, body: napi_callback, data: *mut c_void) -> Result<napi_value> {
    let mut value = null_mut();
    napi!(napi_create_function(env, null(), 0, body, data, &mut value))?;
    Ok(value)
}

fn set(env: napi_env, object: napi_value, name: &str, value: napi_value) -> Result<()> {
    napi!(napi_set_property(env, object, text(env, name)?, value))
}

fn text(env: napi_env, text: &str) -> Result<napi_value> {
    let mut value = null_mut();
    napi!(napi_create_string_utf8(env, text.as_ptr().cast(), text.len().cast_signed(), &mut value))?;
    Ok(value)
}

fn number(env: napi_env, value: napi_value) -> Result<u64> {
    let mut number = 0.0;
    napi!(napi_get_value_double(env, value, &mut number))?;
    Ok(number as u64)
}

fn string(env: napi_env, value: napi_value) -> Result<String> {
    let mut length = 0;
    napi!(napi_get_value_string_utf8(env, value, null_mut(), 0, &mut length))?;
    // Node writes a zero behind the text.
    let mut text = vec![0_u8; length + 1];
    napi!(napi_get_value_string_utf8(env, value, text.as_mut_ptr().cast::<c_char>(), text.len(), &mut length))?;
    text.truncate(length);
    String::from_utf8(text).map_err(|_| Thrown("a text is not valid Unicode".to_owned()))
}

fn bytes(env: napi_env, value: napi_value) -> Result<Bytes> {
    let mut kind = ValueType::napi_undefined;
    napi!(napi_typeof(env, value, &mut kind))?;
    if kind == ValueType::napi_undefined {
        return Ok(Bytes::new());
    }
    let (mut data, mut length) = (null_mut(), 0);
    napi!(napi_get_buffer_info(env, value, &mut data, &mut length))?;
    if data.is_null() || length == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: Node returned the address and the length of the view, which cannot change before this function returns.
    Ok(Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) }))
}
