// Runs a provider component on wasmtime's C API, and makes the checks of the other stock hosts.
//
//     host COMPONENT IMAGE     # with the variables that `sandbox-host gateway` prints, or DOCKER_HOST
//
// IMAGE is the reference of an image in a registry. wasmtime's HTTP client speaks HTTP/1.1 only and adds no
// credentials, so the provider for Modal needs the gateway. The provider for Docker needs none.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "provider.h"

static int passed;

static void check(const char *what, bool holds) {
  if (!holds) {
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
  }
  printf("ok  %s\n", what);
  passed++;
}

static bool is_text(const value *v, const char *text) {
  wasm_name_t have = value_text(v);
  return have.size == strlen(text) && !memcmp(have.data, text, have.size);
}

static bool is_bytes(const value *list, const char *bytes, size_t size) {
  char *have = malloc(size + 1);
  bool same = value_bytes(list, have, size) == size && !memcmp(have, bytes, size);
  free(have);
  return same;
}

static void set(value *place, const char *text) { value_set_text(place, text, strlen(text)); }

// Instantiates the component with the variables of this process that providers read.
static provider *open_provider(const char *path, const char *token) {
  static const char *const NAMES[] = {"MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE",
                                      "DOCKER_HOST"};
  const char *names[5], *values[5];
  size_t count = 0;
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
    const char *set = getenv(NAMES[i]);
    if (!set)
      continue;
    names[count] = NAMES[i];
    values[count++] = token && strstr(NAMES[i], "TOKEN") ? token : set;
  }
  char error[1000];
  provider *opened = provider_open(path, count, names, values, error, sizeof error);
  if (!opened) {
    fprintf(stderr, "%s\n", error);
    exit(1);
  }
  return opened;
}

static void begin(call *c, provider *p, const char *function) {
  if (!call_begin(c, p, function)) {
    fprintf(stderr, "the component does not export %s\n", function);
    exit(1);
  }
}

// Runs a call and returns what it returned. Ends the program with the message of an error.
static value *run(call *c) {
  wasmtime_error_t *trap = call_run(c);
  if (trap) {
    wasm_byte_vec_t message;
    wasmtime_error_message(trap, &message);
    fprintf(stderr, "%.*s\n", (int)message.size, message.data);
    exit(1);
  }
  if (!c->ok) {
    wasm_name_t message = value_text(value_at(call_payload(c), "message"));
    fprintf(stderr, "%.*s\n", (int)message.size, message.data);
    exit(1);
  }
  return call_payload(c);
}

// Returns a new id, such as every sandbox and command needs. A real host uses a UUID.
static void fresh_id(value *place) {
  unsigned char bytes[16];
  char text[33];
  FILE *random = fopen("/dev/urandom", "rb");
  if (!random || fread(bytes, sizeof bytes, 1, random) != 1)
    exit(1);
  fclose(random);
  for (size_t i = 0; i < sizeof bytes; i++)
    snprintf(text + 2 * i, 3, "%02x", bytes[i]);
  set(place, text);
}

// Prepares `run` of a command in a sandbox with at most two mebibytes of output. wasmtime limits a result to 128 MiB of
// values, and a byte of a list is a value of 48 bytes.
static void prepare(call *c, provider *p, const value *sandbox, size_t count, const char *argv[]) {
  begin(c, p, "run");
  value_set_text(&c->arguments[0], sandbox->of.string.data, sandbox->of.string.size);
  value_set_texts(value_at(&c->arguments[1], "argv"), count, argv);
  fresh_id(value_at(&c->arguments[1], "id"));
  value time_limit = {.kind = WASMTIME_COMPONENT_U64, .of = {.u64 = 30000}};
  value_set_some(value_at(&c->arguments[1], "timeout"), &time_limit);
  value_set_u64(value_at(&c->arguments[3], "stdout-max"), 2 << 20);
  value_set_u64(value_at(&c->arguments[3], "stderr-max"), 1 << 20);
}

int main(int count, char *arguments[]) {
  if (count != 3) {
    fprintf(stderr, "usage: host COMPONENT IMAGE\n");
    return 2;
  }
  call c;
  if (getenv("MODAL_TOKEN_ID")) {
    provider *other = open_provider(arguments[1], "guess");
    begin(&c, other, "check");
    wasmtime_error_t *trap = call_run(&c);
    check("a wrong gateway token is refused",
          !trap && !c.ok && is_text(value_at(call_payload(&c), "kind"), "unauthenticated"));
    call_end(&c);
    provider_close(other);
  }

  provider *p = open_provider(arguments[1], NULL);
  begin(&c, p, "describe");
  check("describe", value_text(value_at(run(&c), "name")).size > 0);
  call_end(&c);

  begin(&c, p, "start-build");
  value fields = {.kind = WASMTIME_COMPONENT_BOOL};
  value_set_record(&fields, 2, (const char *[]){"reference", "login"});
  set(value_at(&fields, "reference"), arguments[2]);
  value_set_variant(value_at(&c.arguments[0], "source"), "registry", &fields);
  value *progress = run(&c);
  while (!value_at(progress, "image.id")) {
    call next;
    begin(&next, p, "read-build");
    wasm_name_t cursor = value_text(value_at(progress, "cursor"));
    value_set_text(&next.arguments[0], cursor.data, cursor.size);
    value_set_u32(&next.arguments[1], 65536);
    value_set_u64(&next.arguments[2], 10000);
    call_end(&c);
    c = next;
    progress = run(&c);
  }
  value image;
  wasmtime_component_val_clone(value_at(progress, "image.id"), &image);
  call_end(&c);
  check("an image", value_text(&image).size > 3);

  begin(&c, p, "create");
  value *spec = &c.arguments[0];
  value_set_variant(value_at(spec, "image.source"), "id", &image);
  value_set_pairs(value_at(spec, "env"), 1, (const char *[]){"GREETING"}, (const char *[]){"hello"});
  value_set_pairs(value_at(spec, "tags"), 1, (const char *[]){"from"}, (const char *[]){"c"});
  value lifetime = {.kind = WASMTIME_COMPONENT_U64, .of = {.u64 = 600000}};
  value_set_some(value_at(spec, "lifetime"), &lifetime);
  value key = {.kind = WASMTIME_COMPONENT_BOOL};
  fresh_id(&key);
  value_set_some(value_at(spec, "key"), &key);
  value sandbox;
  wasmtime_component_val_clone(value_at(run(&c), "id"), &sandbox);
  call_end(&c);
  check("a sandbox", value_text(&sandbox).size > 3);

  const char *script = "printf '%s %s' \"$GREETING\" \"$(cat)\"; echo err >&2; exit 7";
  prepare(&c, p, &sandbox, 3, (const char *[]){"sh", "-c", script});
  value_set_bytes(&c.arguments[2], "from stdin", 10);
  value *result = run(&c);
  value *verdict = value_at(result, "verdict");
  check("the exit code", is_text(verdict, "exited") && value_payload(verdict)->of.s32 == 7);
  check("standard output", is_bytes(value_at(result, "stdout.data"), "hello from stdin", 16));
  check("standard error", is_bytes(value_at(result, "stderr.data"), "err\n", 4));
  call_end(&c);

  char *zeros = calloc(1000000, 1);
  prepare(&c, p, &sandbox, 4, (const char *[]){"head", "-c", "1000000", "/dev/zero"});
  check("a million bytes", is_bytes(value_at(run(&c), "stdout.data"), zeros, 1000000));
  call_end(&c);
  free(zeros);

  begin(&c, p, "terminate");
  value_set_text(&c.arguments[0], sandbox.of.string.data, sandbox.of.string.size);
  run(&c);
  call_end(&c);
  begin(&c, p, "wait");
  value_set_text(&c.arguments[0], sandbox.of.string.data, sandbox.of.string.size);
  value_set_u64(&c.arguments[1], 30000);
  value *end = value_payload(run(&c));
  check("the end", end && is_text(end, "terminated"));
  call_end(&c);
  wasmtime_component_val_delete(&sandbox);
  provider_close(p);
  printf("%d passed, 0 failed\n", passed);
  return 0;
}
