/* Measures the C library of this repository: commands per second, and CPU time per command. The arguments are the component,
 * the number of commands, and the numbers of commands in flight. Each printed line has the number in flight, the commands per
 * second, and the CPU milliseconds per command. */
#include <sandbox_host.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static sandbox_host host;
static char command[512];

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static double cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void check(sandbox_call call, const char *what) {
    if (sandbox_call_status(call) != SANDBOX_OK) {
        const char *text = call ? sandbox_call_json(call, NULL) : sandbox_last_error();
        fprintf(stderr, "%s: %s\n", what, text ? text : "no answer");
        exit(1);
    }
}

/* Runs `true` this number of times, with `in_flight` at a time. */
static void run(int total, int in_flight) {
    int started = 0;
    for (int done = 0; done < total; done++) {
        for (; started < total && started < done + in_flight; started++)
            if (!sandbox_call_start_queued(host, "sandbox.run", command, NULL, 0, NULL)) check(0, "start");
        sandbox_call call = sandbox_host_next(host, 60000);
        check(call, "run");
        const char *verdict = sandbox_call_value(call, "/verdict/exited", NULL);
        if (!verdict || strcmp(verdict, "0") != 0) {
            fprintf(stderr, "`true` failed: %s\n", sandbox_call_json(call, NULL));
            exit(1);
        }
        sandbox_call_free(call);
    }
}

int main(int count, char **words) {
    if (count < 4) return 2;
    char text[4096];
    host = sandbox_host_open();
    snprintf(text, sizeof text, "{\"component\": \"%s\"}", words[1]);
    sandbox_call call = sandbox_call_run(host, "provider.open", text, NULL, 0);
    check(call, "open");
    char provider[32];
    snprintf(provider, sizeof provider, "%s", sandbox_call_value(call, "/provider", NULL));
    sandbox_call_free(call);
    snprintf(text, sizeof text, "{\"provider\": %s, \"spec\": {}}", provider);
    call = sandbox_call_run(host, "sandbox.create", text, NULL, 0);
    check(call, "create");
    snprintf(command, sizeof command, "{\"provider\": %s, \"sandbox\": \"%s\", \"command\": {\"argv\": [\"true\"]}}", provider,
             sandbox_call_value(call, "/info/id", NULL));
    sandbox_call_free(call);
    int total = atoi(words[2]);
    run(10, 1);
    for (int at = 3; at < count; at++) {
        int in_flight = atoi(words[at]);
        run(in_flight, in_flight);
        double begun = now(), spent = cpu();
        run(total, in_flight);
        double seconds = now() - begun;
        printf("%d %f %f\n", in_flight, total / seconds, (cpu() - spent) * 1000 / total);
        fflush(stdout);
    }
    *strstr(command, ", \"command\"") = '}';
    command[strcspn(command, "}") + 1] = '\0';
    call = sandbox_call_run(host, "sandbox.terminate", command, NULL, 0);
    check(call, "terminate");
    sandbox_call_free(call);
    sandbox_host_close(host);
    return 0;
}
