// Checks of the C library with the memory provider, whose file is the argument. Prints one line for each check.
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sandbox_host.h"

#define SECONDS 30

static int failures;
static const char *component;
static sandbox_host host;
static char provider[32], at[256];

// Defined in callback.cpp.
bool cpp_callback_catches(sandbox_host host);

// Ends a check with a message if a condition does not hold.
#define EXPECT(condition)                                                                 \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            snprintf(why, sizeof why, "line %d: %s", __LINE__, #condition);               \
            return false;                                                                 \
        }                                                                                 \
    } while (0)

static char why[512];

static long now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

// Waits until a counter has a value. Returns false after the deadline.
static bool reaches(atomic_int *counter, int value) {
    for (long end = now_ms() + SECONDS * 1000; now_ms() < end; usleep(1000)) {
        if (atomic_load(counter) == value) return true;
    }
    return false;
}

static sandbox_call run(const char *method, const char *arguments) {
    return sandbox_call_run(host, method, arguments, NULL, 0);
}

// Returns whether a value of a call is this text.
static bool is(sandbox_call call, const char *pointer, const char *expected) {
    const char *value = sandbox_call_value(call, pointer, NULL);
    return value && strcmp(value, expected) == 0;
}

// Returns whether a call fails with an error of this kind whose message contains a text. Frees the call.
static bool fails(sandbox_call call, const char *kind, const char *text) {
    const char *message = sandbox_call_value(call, "/message", NULL);
    bool good = sandbox_call_status(call) == SANDBOX_FAILED && is(call, "/kind", kind) && message && strstr(message, text);
    if (!good) fprintf(stderr, "expected %s with \"%s\", got %s\n", kind, text, sandbox_call_json(call, NULL));
    return sandbox_call_free(call) == SANDBOX_OK && good;
}

// Returns whether the last error of this thread has this kind.
static bool last(const char *kind) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"kind\":\"%s\"", kind);
    const char *error = sandbox_last_error();
    return error && strstr(error, wanted);
}

// Starts a command that does not end by itself, and returns the call.
static const char *endless(void) {
    static char arguments[512];
    snprintf(arguments, sizeof arguments, "{%s, \"command\": {\"argv\": [\"sleep\", \"1000\"]}}", at);
    return arguments;
}

static sandbox_call start_endless(void) { return sandbox_call_start(host, "sandbox.run", endless(), NULL, 0); }

static bool readable(sandbox_host of) {
    struct pollfd ready = {.fd = sandbox_host_descriptor(of), .events = POLLIN};
    return ready.fd >= 0 && poll(&ready, 1, 0) == 1;
}

static bool version_is_known(void) {
    EXPECT(strcmp(sandbox_version(), "0.1.0") == 0);
    EXPECT(sandbox_last_error() == NULL);
    return true;
}

static bool host_opens(void) {
    host = sandbox_host_open();
    EXPECT(host != 0);
    return true;
}

static bool unknown_method_is_an_error(void) {
    EXPECT(fails(run("no.such", "{}"), "invalid-argument", "no.such"));
    return true;
}

static bool null_method_is_an_error(void) {
    EXPECT(fails(run(NULL, "{}"), "invalid-argument", "`method` is NULL"));
    return true;
}

static bool method_that_is_not_utf8_is_an_error(void) {
    EXPECT(fails(run("\xff\xfe", "{}"), "invalid-argument", "not UTF-8"));
    return true;
}

static bool arguments_that_are_not_utf8_are_an_error(void) {
    EXPECT(fails(run("version", "{\"a\": \"\xc3\"}"), "invalid-argument", "not UTF-8"));
    return true;
}

static bool arguments_that_are_not_json_are_an_error(void) {
    EXPECT(fails(run("version", "{"), "invalid-argument", "version"));
    EXPECT(fails(run("version", "[1]"), "invalid-argument", "invalid type: sequence, expected an object"));
    EXPECT(fails(run("close", "[1]"), "invalid-argument", "expected an object"));
    return true;
}

static bool wrong_types_are_an_error(void) {
    EXPECT(fails(run("close", "{\"object\": \"one\"}"), "invalid-argument", "string \"one\""));
    EXPECT(fails(run("close", "{\"object\": -1}"), "invalid-argument", "-1"));
    return true;
}

static bool unknown_field_is_named(void) {
    EXPECT(fails(run("close", "{\"object\": 1, \"objekt\": 1}"), "invalid-argument", "`objekt`"));
    return true;
}

static bool null_arguments_are_an_empty_object(void) {
    sandbox_call call = run("version", NULL);
    EXPECT(sandbox_call_status(call) == SANDBOX_OK && is(call, "/version", sandbox_version()));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool null_data_with_a_size_is_an_error(void) {
    EXPECT(fails(sandbox_call_run(host, "file.write", "{}", NULL, 5), "invalid-argument", "`data` is NULL"));
    EXPECT(fails(sandbox_call_run(host, "file.write", "{}", "x", (size_t)-1), "invalid-argument", "address space"));
    return true;
}

static bool data_that_a_method_does_not_take_is_an_error(void) {
    EXPECT(fails(sandbox_call_run(host, "version", "{}", "data", 4), "invalid-argument", "takes no data"));
    return true;
}

static bool missing_component_is_an_error(void) {
    EXPECT(fails(run("provider.open", "{\"component\": \"/none.wasm\"}"), "plugin:missing", "/none.wasm"));
    return true;
}

static bool provider_opens(void) {
    char arguments[4096];
    snprintf(arguments, sizeof arguments, "{\"component\": \"%s\"}", component);
    sandbox_call call = run("provider.open", arguments);
    EXPECT(sandbox_call_status(call) == SANDBOX_OK && is(call, "/name", "memory"));
    snprintf(provider, sizeof provider, "%s", sandbox_call_value(call, "/provider", NULL));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool sandbox_is_created(void) {
    char arguments[256];
    snprintf(arguments, sizeof arguments, "{\"provider\": %s}", provider);
    sandbox_call call = run("sandbox.create", arguments);
    EXPECT(sandbox_call_status(call) == SANDBOX_OK && is(call, "/info/state", "running"));
    const char *id = sandbox_call_value(call, "/info/id", NULL);
    snprintf(at, sizeof at, "\"provider\": %s, \"sandbox\": \"%s\"", provider, id);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool command_has_input_and_output(void) {
    char arguments[512];
    snprintf(arguments, sizeof arguments, "{%s, \"command\": {\"argv\": [\"cat\"]}}", at);
    sandbox_call call = sandbox_call_run(host, "sandbox.run", arguments, "in\0put", 6);
    size_t size = 99;
    EXPECT(sandbox_call_part_count(call) == 2);
    const void *bytes = sandbox_call_part(call, 0, &size);
    EXPECT(bytes && size == 6 && memcmp(bytes, "in\0put", 6) == 0);
    EXPECT(sandbox_call_part(call, 1, &size) != NULL && size == 0);
    EXPECT(sandbox_call_part(call, 2, &size) == NULL && last("not-found"));
    EXPECT(is(call, "/verdict/exited", "0") && is(call, "/verdict", "{\"exited\":0}") && is(call, "/stdout_total", "6"));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool values_are_found_by_pointers(void) {
    sandbox_call call = run("version", "{}");
    size_t size = 0;
    EXPECT(is(call, "/interface_versions/0", "0.2.0") && sandbox_call_value(call, "/version", &size) && size == 5);
    EXPECT(sandbox_call_value(call, "/version", NULL) == sandbox_call_value(call, "/version", NULL));
    EXPECT(sandbox_call_value(call, "/none", NULL) == NULL && last("not-found"));
    EXPECT(sandbox_call_value(call, "version", NULL) == NULL && last("not-found"));
    EXPECT(sandbox_call_value(call, NULL, NULL) == NULL && last("invalid-argument"));
    EXPECT(strcmp(sandbox_call_value(call, "", NULL), sandbox_call_json(call, &size)) == 0 && size > 20);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool large_file_moves(void) {
    enum { LENGTH = 3 << 20 };
    char arguments[512], *data = malloc(LENGTH);
    for (size_t i = 0; i < LENGTH; i++) data[i] = (char)(i * 31 + (i >> 12));
    snprintf(arguments, sizeof arguments, "{%s, \"path\": \"/large\"}", at);
    sandbox_call call = sandbox_call_run(host, "file.write", arguments, data, LENGTH);
    EXPECT(sandbox_call_status(call) == SANDBOX_OK && strcmp(sandbox_call_json(call, NULL), "null") == 0);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    call = run("file.read", arguments);
    size_t size = 0;
    const void *bytes = sandbox_call_part(call, 0, &size);
    EXPECT(bytes && size == LENGTH && memcmp(bytes, data, LENGTH) == 0);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    free(data);
    return true;
}

static bool transfer_reports_progress(void) {
    char arguments[8192], total[32] = "none", last_bytes[32] = "none";
    const char *form = "{\"method\": \"file.upload\", \"arguments\": {%s, \"from\": \"%s\", \"path\": \"/component\"}}";
    snprintf(arguments, sizeof arguments, form, at, component);
    sandbox_call call = run("transfer.start", arguments);
    EXPECT(sandbox_call_status(call) == SANDBOX_OK);
    snprintf(arguments, sizeof arguments, "%s", sandbox_call_json(call, NULL));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    for (bool end = false; !end;) {
        call = run("transfer.next", arguments);
        EXPECT(sandbox_call_status(call) == SANDBOX_OK);
        end = strcmp(sandbox_call_json(call, NULL), "null") == 0;
        if (!end) snprintf(total, sizeof total, "%s", sandbox_call_value(call, "/total", NULL));
        if (!end) snprintf(last_bytes, sizeof last_bytes, "%s", sandbox_call_value(call, "/bytes", NULL));
        EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    }
    call = run("transfer.result", arguments);
    EXPECT(sandbox_call_status(call) == SANDBOX_OK && is(call, "/bytes", total) && strcmp(last_bytes, total) == 0);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool error_has_all_fields(void) {
    char arguments[512];
    snprintf(arguments, sizeof arguments, "{%s, \"path\": \"/none\"}", at);
    sandbox_call call = run("file.read", arguments);
    EXPECT(sandbox_call_status(call) == SANDBOX_FAILED && is(call, "/kind", "file:not-found"));
    EXPECT(is(call, "/happened", "no") && is(call, "/retryable", "false") && is(call, "/retry_after_ms", "null"));
    EXPECT(sandbox_call_value(call, "/reason", NULL) && sandbox_call_value(call, "/subject", NULL));
    EXPECT(sandbox_call_part_count(call) == 0);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool wait_has_a_time_limit(void) {
    sandbox_call call = start_endless();
    long begun = now_ms();
    EXPECT(sandbox_call_wait(call, 50) == SANDBOX_PENDING && now_ms() - begun >= 50);
    EXPECT(sandbox_call_wait(call, 0) == SANDBOX_PENDING && sandbox_call_status(call) == SANDBOX_PENDING);
    EXPECT(sandbox_call_json(call, NULL) == NULL && last("conflict"));
    EXPECT(sandbox_call_value(call, "/x", NULL) == NULL && last("conflict"));
    EXPECT(sandbox_call_part(call, 0, NULL) == NULL && sandbox_call_part_count(call) == 0);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool cancelled_call_completes(void) {
    sandbox_call call = start_endless();
    EXPECT(sandbox_call_cancel(call) == SANDBOX_OK);
    EXPECT(sandbox_call_wait(call, SECONDS * 1000) == SANDBOX_FAILED && is(call, "/kind", "cancelled"));
    EXPECT(sandbox_call_cancel(call) == SANDBOX_OK && is(call, "/kind", "cancelled"));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool freed_call_is_unknown(void) {
    sandbox_call call = start_endless();
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    EXPECT(sandbox_call_free(call) == SANDBOX_INVALID && last("closed"));
    EXPECT(sandbox_call_status(call) == SANDBOX_INVALID && sandbox_call_wait(call, 0) == SANDBOX_INVALID);
    EXPECT(sandbox_call_cancel(call) == SANDBOX_INVALID && sandbox_call_json(call, NULL) == NULL);
    EXPECT(sandbox_call_part(call, 0, NULL) == NULL && sandbox_call_context(call) == NULL);
    return true;
}

static bool wrong_handles_are_errors(void) {
    sandbox_call call = run("version", "{}");
    EXPECT(sandbox_call_status(0) == SANDBOX_INVALID && last("invalid-argument"));
    EXPECT(sandbox_call_free(0xffffffffffffffff) == SANDBOX_INVALID && last("invalid-argument"));
    EXPECT(sandbox_call_free(host) == SANDBOX_INVALID && last("invalid-argument"));
    EXPECT(sandbox_host_close(call) == SANDBOX_INVALID && last("invalid-argument"));
    EXPECT(sandbox_host_close(0) == SANDBOX_INVALID && sandbox_host_descriptor(call) == -1);
    EXPECT(sandbox_call_start(call, "version", "{}", NULL, 0) == 0 && last("invalid-argument"));
    EXPECT(sandbox_call_run(0, "version", "{}", NULL, 0) == 0 && sandbox_host_next(0, 0) == 0);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static void *fail_once(void *nothing) {
    sandbox_call_free(0);
    return sandbox_last_error() ? nothing : &failures;
}

static bool errors_belong_to_threads(void) {
    EXPECT(sandbox_call_value(0, NULL, NULL) == NULL);
    const char *before = sandbox_last_error();
    pthread_t thread;
    void *result;
    EXPECT(pthread_create(&thread, NULL, fail_once, NULL) == 0 && pthread_join(thread, &result) == 0);
    EXPECT(result == NULL && sandbox_last_error() == before);
    return true;
}

struct seen {
    atomic_int calls, ended, together, most;
    pthread_t thread;
    sandbox_call call;
    bool frees;
    atomic_bool *gate;
};

static void see(sandbox_call call, void *context) {
    struct seen *seen = context;
    seen->thread = pthread_self();
    seen->call = call;
    if (sandbox_call_context(call) != context || sandbox_call_status(call) == SANDBOX_PENDING) return;
    int together = atomic_fetch_add(&seen->together, 1) + 1;
    if (together > atomic_load(&seen->most)) atomic_store(&seen->most, together);
    if (seen->frees) sandbox_call_free(call);
    atomic_fetch_add(&seen->calls, 1);
    while (seen->gate && !atomic_load(seen->gate)) usleep(1000);
    atomic_fetch_sub(&seen->together, 1);
    atomic_fetch_add(&seen->ended, 1);
}

static sandbox_call start_seen(const char *method, const char *arguments, struct seen *seen) {
    return sandbox_call_start_callback(host, method, arguments, NULL, 0, see, seen);
}

static bool callback_runs_once_in_another_thread(void) {
    struct seen seen = {0};
    sandbox_call call = start_seen("version", "{}", &seen);
    EXPECT(call != 0 && reaches(&seen.ended, 1));
    EXPECT(seen.call == call && !pthread_equal(seen.thread, pthread_self()) && sandbox_call_status(call) == SANDBOX_OK);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK && atomic_load(&seen.calls) == 1);
    return true;
}

static bool callback_may_free_its_call(void) {
    struct seen seen = {.frees = true};
    sandbox_call call = start_seen("version", "{}", &seen);
    EXPECT(call != 0 && reaches(&seen.ended, 1) && sandbox_call_free(call) == SANDBOX_INVALID);
    return true;
}

static bool callback_that_is_null_is_an_error(void) {
    EXPECT(sandbox_call_start_callback(host, "version", "{}", NULL, 0, NULL, NULL) == 0 && last("invalid-argument"));
    return true;
}

static bool callbacks_get_unusable_requests_too(void) {
    struct seen seen = {0};
    sandbox_call call = start_seen(NULL, "{}", &seen);
    EXPECT(reaches(&seen.ended, 1));
    EXPECT(fails(call, "invalid-argument", "`method` is NULL"));
    return true;
}

static bool callbacks_run_one_at_a_time(void) {
    enum { COUNT = 100 };
    struct seen seen = {.frees = true};
    for (int i = 0; i < COUNT; i++) EXPECT(start_seen("version", "{}", &seen) != 0);
    EXPECT(reaches(&seen.ended, COUNT) && atomic_load(&seen.most) == 1);
    return true;
}

static bool callback_of_a_freed_call_does_not_run(void) {
    struct seen seen = {0};
    sandbox_call call = start_seen("sandbox.run", endless(), &seen);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    // Callbacks run in the order of completion, so a later one shows that the first was left out.
    struct seen later = {.frees = true};
    EXPECT(start_seen("version", "{}", &later) != 0 && reaches(&later.ended, 1) && atomic_load(&seen.calls) == 0);
    return true;
}

static void *open_gate(void *gate) {
    usleep(50000);
    atomic_store((atomic_bool *)gate, true);
    return NULL;
}

static bool free_waits_for_a_running_callback(void) {
    atomic_bool gate = false;
    struct seen seen = {.gate = &gate};
    sandbox_call call = start_seen("version", "{}", &seen);
    EXPECT(reaches(&seen.calls, 1));
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, open_gate, &gate) == 0);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK && atomic_load(&seen.ended) == 1);
    EXPECT(pthread_join(thread, NULL) == 0);
    return true;
}

static bool cpp_exception_is_caught_in_the_callback(void) {
    EXPECT(cpp_callback_catches(host));
    return true;
}

static bool queue_returns_completed_calls(void) {
    int contexts[3];
    sandbox_call calls[3];
    for (int i = 0; i < 3; i++) calls[i] = sandbox_call_start_queued(host, "version", "{}", NULL, 0, &contexts[i]);
    for (int i = 0; i < 3; i++) {
        sandbox_call call = sandbox_host_next(host, SECONDS * 1000);
        EXPECT(call == calls[0] || call == calls[1] || call == calls[2]);
        int *context = sandbox_call_context(call);
        EXPECT(calls[context - contexts] == call && sandbox_call_status(call) == SANDBOX_OK);
        EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    }
    EXPECT(sandbox_host_next(host, 0) == 0 && last("timed-out"));
    return true;
}

static bool descriptor_shows_completed_calls(void) {
    EXPECT(!readable(host));
    sandbox_call call = sandbox_call_start_queued(host, "version", "{}", NULL, 0, NULL);
    struct pollfd ready = {.fd = sandbox_host_descriptor(host), .events = POLLIN};
    EXPECT(poll(&ready, 1, SECONDS * 1000) == 1 && readable(host));
    EXPECT(sandbox_host_next(host, 0) == call && !readable(host));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool freed_call_leaves_the_queue(void) {
    sandbox_call call = sandbox_call_start_queued(host, "version", "{}", NULL, 0, NULL);
    EXPECT(sandbox_call_wait(call, SECONDS * 1000) == SANDBOX_OK);
    EXPECT(sandbox_call_free(call) == SANDBOX_OK && !readable(host) && sandbox_host_next(host, 0) == 0);
    return true;
}

static bool next_has_a_time_limit(void) {
    long begun = now_ms();
    EXPECT(sandbox_host_next(host, 50) == 0 && last("timed-out") && now_ms() - begun >= 50);
    return true;
}

static bool thousand_calls_are_under_way(void) {
    enum { COUNT = 1000 };
    static sandbox_call calls[COUNT];
    for (int i = 0; i < COUNT; i++) {
        calls[i] = sandbox_call_start_queued(host, "sandbox.run", endless(), NULL, 0, NULL);
        EXPECT(calls[i] != 0);
    }
    EXPECT(sandbox_host_next(host, 0) == 0);
    for (int i = 0; i < COUNT; i++) EXPECT(sandbox_call_cancel(calls[i]) == SANDBOX_OK);
    for (int i = 0; i < COUNT; i++) {
        sandbox_call call = sandbox_host_next(host, SECONDS * 1000);
        EXPECT(sandbox_call_status(call) == SANDBOX_FAILED && is(call, "/kind", "cancelled"));
        EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    }
    return true;
}

static void *call_often(void *wrong) {
    for (int i = 0; i < 100; i++) {
        sandbox_call call = run("version", "{}");
        if (sandbox_call_status(call) != SANDBOX_OK || !is(call, "/version", "0.1.0")) atomic_fetch_add((atomic_int *)wrong, 1);
        if (sandbox_call_free(call) != SANDBOX_OK) atomic_fetch_add((atomic_int *)wrong, 1);
    }
    return NULL;
}

static bool threads_share_a_host(void) {
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    atomic_int wrong = 0;
    for (int i = 0; i < THREADS; i++) EXPECT(pthread_create(&threads[i], NULL, call_often, &wrong) == 0);
    for (int i = 0; i < THREADS; i++) EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(atomic_load(&wrong) == 0);
    return true;
}

static bool process_streams(void) {
    char arguments[512], process[32];
    snprintf(arguments, sizeof arguments, "{%s, \"command\": {\"argv\": [\"cat\"]}}", at);
    sandbox_call call = run("process.start", arguments);
    snprintf(process, sizeof process, "%s", sandbox_call_value(call, "/process", NULL));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    snprintf(arguments, sizeof arguments, "{\"process\": %s, \"stream\": \"stdout\"}", process);
    sandbox_call reading = sandbox_call_start(host, "process.read", arguments, NULL, 0);
    EXPECT(sandbox_call_wait(reading, 50) == SANDBOX_PENDING);
    snprintf(arguments, sizeof arguments, "{\"process\": %s}", process);
    EXPECT(sandbox_call_free(sandbox_call_run(host, "process.write", arguments, "abc", 3)) == SANDBOX_OK);
    EXPECT(sandbox_call_wait(reading, SECONDS * 1000) == SANDBOX_OK && is(reading, "/end", "false"));
    size_t size = 0;
    EXPECT(memcmp(sandbox_call_part(reading, 0, &size), "abc", 3) == 0 && size == 3);
    EXPECT(sandbox_call_free(reading) == SANDBOX_OK);
    EXPECT(sandbox_call_free(run("process.close_input", arguments)) == SANDBOX_OK);
    call = run("process.wait", arguments);
    EXPECT(is(call, "/exited", "0") && sandbox_call_free(call) == SANDBOX_OK);
    snprintf(arguments, sizeof arguments, "{\"object\": %s}", process);
    EXPECT(sandbox_call_free(run("close", arguments)) == SANDBOX_OK);
    snprintf(arguments, sizeof arguments, "{\"process\": %s}", process);
    EXPECT(fails(run("process.wait", arguments), "closed", "is closed"));
    return true;
}

static bool forked_process_fails_and_does_not_hang(void) {
    sandbox_call call = start_endless();
    pid_t child = fork();
    if (child == 0) {
        alarm(SECONDS);
        bool good = sandbox_call_start(host, "version", "{}", NULL, 0) == 0 && last("closed");
        good = good && strstr(sandbox_last_error(), "fork") && sandbox_host_open() == 0 && sandbox_host_next(host, -1) == 0;
        good = good && sandbox_call_wait(call, -1) == SANDBOX_INVALID && sandbox_call_status(call) == SANDBOX_INVALID;
        good = good && sandbox_call_free(call) == SANDBOX_INVALID && sandbox_host_close(host) == SANDBOX_INVALID;
        good = good && strcmp(sandbox_version(), "0.1.0") == 0;
        _exit(good ? 0 : 1);
    }
    int status = -1;
    EXPECT(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT(sandbox_call_status(call) == SANDBOX_PENDING && sandbox_call_free(call) == SANDBOX_OK);
    return true;
}

static bool hosts_are_independent(void) {
    sandbox_host other = sandbox_host_open();
    char arguments[64];
    snprintf(arguments, sizeof arguments, "{\"provider\": %s}", provider);
    EXPECT(fails(sandbox_call_run(other, "provider.check", arguments, NULL, 0), "invalid-argument", "no object"));
    sandbox_call call = sandbox_call_start_queued(other, "version", "{}", NULL, 0, NULL);
    EXPECT(sandbox_call_wait(call, SECONDS * 1000) == SANDBOX_OK && readable(other) && !readable(host));
    EXPECT(sandbox_host_close(other) == SANDBOX_OK && sandbox_call_free(call) == SANDBOX_OK);
    EXPECT(sandbox_host_close(other) == SANDBOX_INVALID && last("closed"));
    return true;
}

static void *wait_for_next(void *of) {
    sandbox_call next = sandbox_host_next(*(sandbox_host *)of, -1);
    return next == 0 && last("closed") ? of : NULL;
}

static bool close_wakes_next(void) {
    sandbox_host other = sandbox_host_open(), kept = other;
    pthread_t thread;
    void *result = NULL;
    EXPECT(pthread_create(&thread, NULL, wait_for_next, &kept) == 0);
    EXPECT(sandbox_host_close(other) == SANDBOX_OK && pthread_join(thread, &result) == 0 && result == &kept);
    return true;
}

static void close_host(sandbox_call call, void *context) {
    sandbox_call_free(call);
    atomic_fetch_add((atomic_int *)context, sandbox_host_close(host) == SANDBOX_OK ? 1 : 100);
}

static bool callback_may_close_its_host(void) {
    sandbox_host before = host;
    host = sandbox_host_open();
    atomic_int closed = 0;
    EXPECT(sandbox_call_start_callback(host, "version", "{}", NULL, 0, close_host, &closed) != 0);
    EXPECT(reaches(&closed, 1) && sandbox_call_start(host, "version", "{}", NULL, 0) == 0 && last("closed"));
    host = before;
    return true;
}

/* Opens a provider that a check closes, and writes its number. */
static bool opens_provider(char number[32]) {
    char arguments[4096];
    snprintf(arguments, sizeof arguments, "{\"component\": \"%s\"}", component);
    sandbox_call call = run("provider.open", arguments);
    snprintf(number, 32, "%s", sandbox_call_value(call, "/provider", NULL));
    return sandbox_call_free(call) == SANDBOX_OK;
}

static bool closed_provider_refuses_calls(void) {
    char arguments[4096], closed[32];
    EXPECT(opens_provider(closed));
    snprintf(arguments, sizeof arguments, "{\"provider\": %s, \"grace_ms\": 1000}", closed);
    sandbox_call call = run("provider.shutdown", arguments);
    EXPECT(is(call, "/cancelled", "0") && sandbox_call_free(call) == SANDBOX_OK);
    snprintf(arguments, sizeof arguments, "{\"provider\": %s}", closed);
    EXPECT(fails(run("provider.check", arguments), "closed", "is closed"));
    return true;
}

static bool closed_provider_closes_what_it_opened(void) {
    char arguments[4096], closed[32], process[32];
    EXPECT(opens_provider(closed));
    snprintf(arguments, sizeof arguments, "{\"provider\": %s}", closed);
    sandbox_call call = run("sandbox.create", arguments);
    const char *form = "{\"provider\": %s, \"sandbox\": \"%s\", \"command\": {\"argv\": [\"sleep\", \"1000\"]}}";
    snprintf(arguments, sizeof arguments, form, closed, sandbox_call_value(call, "/info/id", NULL));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    call = run("process.start", arguments);
    snprintf(process, sizeof process, "{\"process\": %s}", sandbox_call_value(call, "/process", NULL));
    EXPECT(sandbox_call_free(call) == SANDBOX_OK);
    sandbox_call waiting = sandbox_call_start(host, "process.wait", process, NULL, 0);
    EXPECT(sandbox_call_wait(waiting, 50) == SANDBOX_PENDING);
    snprintf(arguments, sizeof arguments, "{\"object\": %s}", closed);
    call = run("close", arguments);
    EXPECT(sandbox_call_status(call) == SANDBOX_OK && sandbox_call_free(call) == SANDBOX_OK);
    EXPECT(sandbox_call_wait(waiting, SECONDS * 1000) == SANDBOX_FAILED);
    EXPECT(fails(waiting, "closed", "was closed during the call"));
    EXPECT(fails(run("process.wait", process), "closed", "is closed"));
    return true;
}

static bool close_ends_calls_under_way(void) {
    enum { COUNT = 20 };
    sandbox_call calls[COUNT];
    struct seen seen = {0};
    for (int i = 0; i < COUNT; i++) calls[i] = i % 2 ? start_endless() : start_seen("sandbox.run", endless(), &seen);
    long begun = now_ms();
    EXPECT(sandbox_host_close(host) == SANDBOX_OK && now_ms() - begun < SECONDS * 1000);
    EXPECT(atomic_load(&seen.ended) == COUNT / 2);
    for (int i = 0; i < COUNT; i++) EXPECT(fails(calls[i], "closed", "closed"));
    return true;
}

static bool closed_host_refuses_calls(void) {
    EXPECT(sandbox_call_start(host, "version", "{}", NULL, 0) == 0 && last("closed"));
    EXPECT(sandbox_host_next(host, -1) == 0 && last("closed") && sandbox_host_descriptor(host) == -1);
    EXPECT(sandbox_host_close(host) == SANDBOX_INVALID);
    return true;
}

static const struct {
    const char *name;
    bool (*check)(void);
} checks[] = {
#define CHECK(name) {#name, name}
    CHECK(version_is_known),
    CHECK(host_opens),
    CHECK(unknown_method_is_an_error),
    CHECK(null_method_is_an_error),
    CHECK(method_that_is_not_utf8_is_an_error),
    CHECK(arguments_that_are_not_utf8_are_an_error),
    CHECK(arguments_that_are_not_json_are_an_error),
    CHECK(wrong_types_are_an_error),
    CHECK(unknown_field_is_named),
    CHECK(null_arguments_are_an_empty_object),
    CHECK(null_data_with_a_size_is_an_error),
    CHECK(data_that_a_method_does_not_take_is_an_error),
    CHECK(missing_component_is_an_error),
    CHECK(provider_opens),
    CHECK(sandbox_is_created),
    CHECK(command_has_input_and_output),
    CHECK(values_are_found_by_pointers),
    CHECK(large_file_moves),
    CHECK(transfer_reports_progress),
    CHECK(error_has_all_fields),
    CHECK(process_streams),
    CHECK(wait_has_a_time_limit),
    CHECK(cancelled_call_completes),
    CHECK(freed_call_is_unknown),
    CHECK(wrong_handles_are_errors),
    CHECK(errors_belong_to_threads),
    CHECK(callback_runs_once_in_another_thread),
    CHECK(callback_may_free_its_call),
    CHECK(callback_that_is_null_is_an_error),
    CHECK(callbacks_get_unusable_requests_too),
    CHECK(callbacks_run_one_at_a_time),
    CHECK(callback_of_a_freed_call_does_not_run),
    CHECK(free_waits_for_a_running_callback),
    CHECK(cpp_exception_is_caught_in_the_callback),
    CHECK(queue_returns_completed_calls),
    CHECK(descriptor_shows_completed_calls),
    CHECK(freed_call_leaves_the_queue),
    CHECK(next_has_a_time_limit),
    CHECK(thousand_calls_are_under_way),
    CHECK(threads_share_a_host),
    CHECK(forked_process_fails_and_does_not_hang),
    CHECK(hosts_are_independent),
    CHECK(close_wakes_next),
    CHECK(callback_may_close_its_host),
    CHECK(closed_provider_refuses_calls),
    CHECK(closed_provider_closes_what_it_opened),
    CHECK(close_ends_calls_under_way),
    CHECK(closed_host_refuses_calls),
};

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    component = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        // A check that hangs ends the program, which shows as a missing line.
        alarm(4 * SECONDS);
        bool good = checks[i].check();
        failures += !good;
        if (good) printf("ok %s\n", checks[i].name);
        else printf("failed %s: %s\n", checks[i].name, why);
    }
    return failures > 0;
}
