// Creates a sandbox, streams the output of a command, moves a file in and out, and terminates the sandbox.
// The argument is the file of a provider; its settings come from the environment.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox_host.h"

static sandbox_host host;

// Calls a method with arguments in the form of printf and returns the completed call. Ends the program if it fails.
static sandbox_call call(const char *method, const char *data, const char *form, ...) {
    char arguments[4096];
    va_list values;
    va_start(values, form);
    vsnprintf(arguments, sizeof arguments, form, values);
    va_end(values);
    sandbox_call done = sandbox_call_run(host, method, arguments, data, data ? strlen(data) : 0);
    if (sandbox_call_status(done) == SANDBOX_OK) return done;
    const char *why = sandbox_call_value(done, "/message", NULL);
    fprintf(stderr, "%s: %s\n", method, why ? why : sandbox_last_error());
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    host = sandbox_host_open();
    sandbox_call opened = call("provider.open", NULL, "{\"component\": \"%s\"}", argv[1]);
    const char *provider = sandbox_call_value(opened, "/provider", NULL);
    sandbox_call created = call("sandbox.create", NULL, "{\"provider\": %s, \"spec\": {\"image\": \"debian\"}}", provider);
    char at[256];
    const char *id = sandbox_call_value(created, "/info/id", NULL);
    snprintf(at, sizeof at, "\"provider\": %s, \"sandbox\": \"%s\"", provider, id);

    const char *line = "for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 7";
    sandbox_call started = call("process.start", NULL, "{%s, \"command\": {\"shell\": \"%s\"}}", at, line);
    const char *process = sandbox_call_value(started, "/process", NULL);
    for (int end = 0; !end;) {
        sandbox_call piece = call("process.read", NULL, "{\"process\": %s, \"stream\": \"stdout\"}", process);
        size_t size;
        const void *bytes = sandbox_call_part(piece, 0, &size);
        fwrite(bytes, 1, size, stdout);
        end = strcmp(sandbox_call_value(piece, "/end", NULL), "true") == 0;
        sandbox_call_free(piece);
    }
    sandbox_call ended = call("process.wait", NULL, "{\"process\": %s}", process);
    printf("exit code %s\n", sandbox_call_value(ended, "/exited", NULL));

    sandbox_call_free(call("file.write", "hello from C\n", "{%s, \"path\": \"/srv/hello\"}", at));
    sandbox_call file = call("file.read", NULL, "{%s, \"path\": \"/srv/hello\"}", at);
    size_t size;
    const void *content = sandbox_call_part(file, 0, &size);
    fwrite(content, 1, size, stdout);
    sandbox_call_free(call("sandbox.terminate", NULL, "{%s}", at));
    printf("terminated\n");
    sandbox_call owned[] = {opened, created, started, ended, file};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) sandbox_call_free(owned[i]);
    return sandbox_host_close(host) == SANDBOX_OK ? 0 : 1;
}
