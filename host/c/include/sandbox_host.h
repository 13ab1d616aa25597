/*
 * sandbox_host.h: sandboxes (isolated, temporary machines) of any provider, for C and all languages that can call C.
 *
 * A call is the name of a method, arguments as JSON, and sometimes bytes. Its result is JSON, and sometimes bytes. The file
 * PROTOCOL.md lists all methods. This header has the functions that start calls, wait for them and read their results.
 *
 *     sandbox_host host = sandbox_host_open();
 *     sandbox_call call = sandbox_call_run(host, "provider.open", "{\"component\": \"modal-provider.wasm\"}", NULL, 0);
 *     if (sandbox_call_status(call) != SANDBOX_OK) fprintf(stderr, "%s\n", sandbox_call_json(call, NULL));
 *     sandbox_call_free(call);
 *     sandbox_host_close(host);
 *
 * Handles. Hosts and calls are numbers that are never used twice. 0 is no handle. A number that is wrong, closed or freed makes
 * a function fail, and never crashes.
 *
 * Ownership. Texts and bytes that are passed in are copied before the function returns. Texts and bytes that are returned
 * belong to the library: those of a call are valid until sandbox_call_free of that call, and must not be changed or freed.
 * Every call must be freed once, also after its host was closed.
 *
 * Threads. Every function may be called in any thread at any time, also in a callback, and several threads may use the same
 * host and the same call. Only the end of a call needs care: no thread may read its texts or bytes while another frees it.
 * Calls run on threads of the library, which are shared by all hosts of the process; no call occupies a thread.
 *
 * Failures. A function that returns 0, NULL or -1 where this header says so has failed, and sandbox_last_error tells why. A
 * call that fails is different: it is completed with the status SANDBOX_FAILED, and its JSON is the error object:
 *     {"kind": "not-found", "message": "...", "reason": "...", "happened": "no", "retryable": false,
 *      "retry_after_ms": null, "subject": null}
 *
 * Processes. The library does not survive fork(): in the child process every function fails, unless the parent had opened no
 * host before. Use posix_spawn, or fork and exec. The library stays in memory after dlclose.
 */
#ifndef SANDBOX_HOST_H
#define SANDBOX_HOST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A set of providers, processes and other objects. Their numbers are valid in the host that made them. */
typedef uint64_t sandbox_host;

/* One call, under way or completed. */
typedef uint64_t sandbox_call;

/* The state of a call. */
enum sandbox_status {
    /* The handle is wrong, or the process was forked. */
    SANDBOX_INVALID = -1,
    /* The call is under way. */
    SANDBOX_PENDING = 0,
    /* The call is completed, and its JSON is the result. Also the result of functions that have succeeded. */
    SANDBOX_OK = 1,
    /* The call is completed, and its JSON is an error object. */
    SANDBOX_FAILED = 2
};

/*
 * Gets a completed call. All callbacks of a host run one after the other in one thread of the library, which may be another
 * one than the thread that started the call, and may run before sandbox_call_start_callback returns. A callback that does not
 * return delays the other callbacks of the host, and nothing else. It may call all functions of this header, and may free
 * `call`. No exception may leave it (C++: catch all; a language without C frames must not unwind through it).
 */
typedef void (*sandbox_callback)(sandbox_call call, void *context);

/* Returns the version of the library, such as "0.1.0". The text is valid forever. Never fails. */
const char *sandbox_version(void);

/*
 * Returns the error object of the last function that failed in this thread, or NULL if none has failed. The text is valid until
 * the next function fails in this thread, or the thread ends.
 */
const char *sandbox_last_error(void);

/*
 * Opens a host, and starts the threads of the library if they do not run yet. Returns 0 if they cannot be started. The host must
 * be closed with sandbox_host_close.
 */
sandbox_host sandbox_host_open(void);

/*
 * Closes a host and its objects. Processes that were not detached are killed; sandboxes keep running. Calls that are under way
 * are completed with an error of the kind "closed", and their callbacks run, before the function returns; afterwards none runs.
 * If a callback closes its own host, the remaining callbacks run after it. Calls that are not freed yet can still be read.
 * Waits until the commands of closed processes and of cancelled calls were killed, at most for about ten seconds. Returns
 * SANDBOX_OK, or SANDBOX_INVALID for a wrong handle. Do not close a host while you hold a lock that a callback needs. An
 * interpreter must close its hosts before it ends, because no callback may run after its end (Python: atexit.register).
 */
int sandbox_host_close(sandbox_host host);

/*
 * Returns a descriptor for poll, select or epoll that is readable while sandbox_host_next has a call to return. It belongs to the
 * library: do not read, write or close it. It is valid until the host is closed. Returns -1 for a wrong handle.
 */
int sandbox_host_descriptor(sandbox_host host);

/*
 * Returns the next completed call that was started with sandbox_call_start_queued, in the order of completion. Waits for it at
 * most `timeout_ms` milliseconds; 0 does not wait, and a negative time has no limit. Returns 0 if there is none in this time (the
 * error has the kind "timed-out"), if the host is closed meanwhile, or for a wrong handle. The caller still has to free the call.
 */
sandbox_call sandbox_host_next(sandbox_host host, int64_t timeout_ms);

/*
 * Starts a call and returns at once. `method` and `arguments` are UTF-8 texts that end with NUL; `arguments` is a JSON object,
 * or NULL for an empty one. `data` are `size` bytes for the methods that take bulk data, otherwise NULL and 0. All are copied.
 * Unusable texts are an error of the call. Returns 0 for a wrong handle. The call must be freed with sandbox_call_free.
 */
sandbox_call sandbox_call_start(sandbox_host host, const char *method, const char *arguments, const void *data, size_t size);

/* Like sandbox_call_start. When the call is completed, sandbox_host_next returns it. `context` is for sandbox_call_context. */
sandbox_call sandbox_call_start_queued(sandbox_host host, const char *method, const char *arguments, const void *data,
                                       size_t size, void *context);

/*
 * Like sandbox_call_start. When the call is completed, the library calls `callback` once with it and with `context`, which must
 * be usable in another thread until then. Returns 0 without a later callback for a wrong handle and for a callback that is NULL.
 * If the callback frees the call, do not use the returned handle.
 */
sandbox_call sandbox_call_start_callback(sandbox_host host, const char *method, const char *arguments, const void *data,
                                         size_t size, sandbox_callback callback, void *context);

/*
 * Starts a call, waits for its completion without a limit, and returns it. Do not use it in a thread that must react to something
 * else. Otherwise like sandbox_call_start.
 */
sandbox_call sandbox_call_run(sandbox_host host, const char *method, const char *arguments, const void *data, size_t size);

/*
 * Waits for the completion of a call, at most `timeout_ms` milliseconds; 0 does not wait, and a negative time has no limit. Returns
 * its status, which is SANDBOX_PENDING after that time. Several threads may wait for the same call. If another thread frees it
 * meanwhile, the call is cancelled and this function returns. Returns SANDBOX_INVALID for a wrong handle.
 */
int sandbox_call_wait(sandbox_call call, int64_t timeout_ms);

/*
 * Cancels a call: it is completed soon with an error of the kind "cancelled", unless it is completed already. A command that
 * "sandbox.run" started is killed. Returns SANDBOX_OK, also for a completed call, or SANDBOX_INVALID for a wrong handle.
 */
int sandbox_call_cancel(sandbox_call call);

/* Returns the status of a call, or SANDBOX_INVALID for a wrong handle. */
int sandbox_call_status(sandbox_call call);

/*
 * Returns the JSON of a completed call: its result or the error object, as a text in UTF-8 that ends with NUL and contains no
 * other NUL. Stores its length without the NUL in `size`, unless that is NULL. Valid until the call is freed. Returns NULL for a
 * call that is under way and for a wrong handle.
 */
const char *sandbox_call_json(sandbox_call call, size_t *size);

/*
 * Returns one value out of the JSON of a completed call, for languages without JSON: the content of a string, and JSON text for
 * all other types. `pointer` is a JSON pointer (RFC 6901), such as "/info/id". A NUL follows the value; a string may contain NUL
 * too, so its length without the last NUL is stored in `size`, unless that is NULL. Valid until the call is freed. Returns NULL if
 * there is no such value, for a call that is under way and for a wrong handle.
 */
const char *sandbox_call_value(sandbox_call call, const char *pointer, size_t *size);

/* Returns how many byte strings the result of a call has: 0, 1 or 2. Returns 0 for a call under way and for a wrong handle. */
size_t sandbox_call_part_count(sandbox_call call);

/*
 * Returns a byte string of the result of a completed call, and stores its length in `size`, unless that is NULL. The first one has
 * the index 0. Valid until the call is freed. Returns NULL for an index that is too large, for a call that is under way and for a
 * wrong handle; an empty byte string is not NULL.
 */
const void *sandbox_call_part(sandbox_call call, size_t index, size_t *size);

/* Returns the `context` with which a call was started, or NULL if there is none, and for a wrong handle. */
void *sandbox_call_context(sandbox_call call);

/*
 * Cancels a call if it is under way, and frees it with all its texts and bytes. If its callback runs in another thread, waits for its
 * end; if it did not begin yet, it never runs. Returns SANDBOX_OK, or SANDBOX_INVALID for a wrong handle, such as that of a call
 * that was freed before. Do not free a call while you hold a lock that its callback needs.
 */
int sandbox_call_free(sandbox_call call);

#ifdef __cplusplus
}
#endif

#endif
