// A provider component in C, on wasmtime's C API: calls by name, and values that are made from the types of the
// functions. The programs in C and Go use it.
//
// A call is prepared with an argument of the right type for each parameter: numbers are 0, texts and lists empty,
// options none, and a variant or enum has its first case. The caller changes only what differs. So a field that a
// later version of the interface adds at the end of a record needs no change in the caller.
//
// Nothing here may be used by two threads at the same time: a call blocks its provider. Use a provider for each thread.

#ifndef PROVIDER_H
#define PROVIDER_H

#include <wasmtime.h>

typedef wasmtime_component_val_t value;

// One instance of a component.
typedef struct provider provider;

// Compiles a component and instantiates it. The component's environment has these variables. On failure, returns NULL and
// writes a text that ends in a zero byte into `error`.
provider *provider_open(const char *path, size_t variables, const char *names[], const char *values[], char *error,
                        size_t error_size);
void provider_close(provider *provider);

// A call that is being prepared, and after `call_run` its result.
typedef struct {
  provider *provider;
  wasmtime_component_func_t function;
  value arguments[8];
  size_t count;
  value result;
  bool ok;
} call;

// Prepares a call of a function of the interface. Returns false if the component does not export it.
bool call_begin(call *call, provider *provider, const char *function);

// Runs the call. Returns NULL, or after a trap the owned error. Afterwards `call_payload` is what the function returned:
// its value if `ok`, and otherwise a record `error` of the interface.
wasmtime_error_t *call_run(call *call);
value *call_payload(call *call);
void call_end(call *call);

// Returns the part of a value at a path of field names with dots between them, such as `image.source`. Steps through
// options that are present. Returns NULL if there is no such part, or a step is an option without a value.
value *value_at(value *whole, const char *path);

// Replace the value at a place. Texts and bytes are copied. The fields of `value_set_record` are absent options until they
// are set in their turn. `value_set_variant` and `value_set_some` take the content of
// `payload`, which may be NULL for a case without one.
void value_set_text(value *place, const char *text, size_t size);
void value_set_u32(value *place, uint32_t number);
void value_set_u64(value *place, uint64_t number);
void value_set_bytes(value *place, const char *bytes, size_t size);
void value_set_texts(value *place, size_t count, const char *texts[]);
void value_set_pairs(value *place, size_t count, const char *names[], const char *values[]);
void value_set_record(value *place, size_t count, const char *names[]);
void value_set_variant(value *place, const char *name, value *payload);
void value_set_some(value *place, value *payload);

// Returns the text of a string, or the name of the case of an enum or variant. It lives as long as the value.
wasm_name_t value_text(const value *value);

// Returns the payload of a variant or option, or NULL without one.
value *value_payload(value *value);

// Copies the bytes of a `list<u8>` to `into`, at most `size`, and returns how many the list has.
size_t value_bytes(const value *list, char *into, size_t size);

#endif
