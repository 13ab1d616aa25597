// See provider.h.

#include "provider.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKAGE "harness:sandbox"
#define VERSION "0.2.0"

// The interfaces whose functions are found by name. No two of them have a function with the same name.
static const char *const INTERFACES[] = {"sandbox-provider", "exec", "processes", "files", "images"};
#define INTERFACE_COUNT (sizeof INTERFACES / sizeof *INTERFACES)

struct provider {
  wasm_engine_t *engine;
  wasmtime_component_t *component;
  wasmtime_component_linker_t *linker;
  wasmtime_store_t *store;
  wasmtime_context_t *context;
  wasmtime_component_instance_t instance;
};

// Writes the message of an error, if there is one, and deletes it. Returns whether there was one.
static bool failed(wasmtime_error_t *error, char *into, size_t size) {
  if (!error)
    return false;
  wasm_byte_vec_t message;
  wasmtime_error_message(error, &message);
  snprintf(into, size, "%.*s", (int)message.size, message.data);
  wasm_byte_vec_delete(&message);
  wasmtime_error_delete(error);
  return true;
}

// Reads a whole file into memory that the caller frees. Returns NULL if that fails.
static uint8_t *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file)
    return NULL;
  uint8_t *bytes = NULL;
  long end = -1;
  if (!fseek(file, 0, SEEK_END) && (end = ftell(file)) >= 0 && !fseek(file, 0, SEEK_SET) && (bytes = malloc(end + 1)) &&
      fread(bytes, 1, end, file) != (size_t)end) {
    free(bytes);
    bytes = NULL;
  }
  fclose(file);
  *size = end;
  return bytes;
}

provider *provider_open(const char *path, size_t variables, const char *names[], const char *values[], char *error,
                        size_t error_size) {
  size_t size = 0;
  uint8_t *bytes = read_file(path, &size);
  if (!bytes) {
    snprintf(error, error_size, "cannot read %s", path);
    return NULL;
  }
  provider *p = calloc(1, sizeof *p);
  p->engine = wasm_engine_new();
  p->store = wasmtime_store_new(p->engine, NULL, NULL);
  p->context = wasmtime_store_context(p->store);
  p->linker = wasmtime_component_linker_new(p->engine);
  wasi_config_t *wasi = wasi_config_new();
  wasi_config_inherit_stderr(wasi);
  bool done = wasi_config_set_env(wasi, variables, names, values);
  if (!done)
    snprintf(error, error_size, "a variable of the environment is not UTF-8");
  done = !failed(wasmtime_context_set_wasi(p->context, wasi), error, error_size) && done;
  wasmtime_context_set_wasi_http(p->context);
  done = done && !failed(wasmtime_component_linker_add_wasip2(p->linker), error, error_size) &&
         !failed(wasmtime_component_linker_add_wasi_http(p->linker), error, error_size) &&
         !failed(wasmtime_component_new(p->engine, bytes, size, &p->component), error, error_size) &&
         !failed(wasmtime_component_linker_instantiate(p->linker, p->context, p->component, &p->instance), error,
                 error_size);
  free(bytes);
  if (done)
    return p;
  provider_close(p);
  return NULL;
}

void provider_close(provider *p) {
  if (p->component)
    wasmtime_component_delete(p->component);
  wasmtime_component_linker_delete(p->linker);
  wasmtime_store_delete(p->store);
  wasm_engine_delete(p->engine);
  free(p);
}

// Makes a value of a type and deletes the type.
static value made_and_deleted(wasmtime_component_valtype_t *type);

// Makes the value that a parameter of this type has before the caller changes it.
static value made(const wasmtime_component_valtype_t *type) {
  value made = {.kind = WASMTIME_COMPONENT_BOOL};
  wasmtime_component_valtype_t part;
  const char *name;
  size_t size;
  switch (type->kind) {
  case WASMTIME_COMPONENT_VALTYPE_U8:
    made.kind = WASMTIME_COMPONENT_U8;
    break;
  case WASMTIME_COMPONENT_VALTYPE_U16:
    made.kind = WASMTIME_COMPONENT_U16;
    break;
  case WASMTIME_COMPONENT_VALTYPE_U32:
    made.kind = WASMTIME_COMPONENT_U32;
    break;
  case WASMTIME_COMPONENT_VALTYPE_U64:
    made.kind = WASMTIME_COMPONENT_U64;
    break;
  case WASMTIME_COMPONENT_VALTYPE_S32:
    made.kind = WASMTIME_COMPONENT_S32;
    break;
  case WASMTIME_COMPONENT_VALTYPE_F64:
    made.kind = WASMTIME_COMPONENT_F64;
    break;
  case WASMTIME_COMPONENT_VALTYPE_STRING:
    made.kind = WASMTIME_COMPONENT_STRING;
    wasm_name_new_empty(&made.of.string);
    return made;
  case WASMTIME_COMPONENT_VALTYPE_LIST:
    made.kind = WASMTIME_COMPONENT_LIST;
    wasmtime_component_vallist_new_empty(&made.of.list);
    return made;
  case WASMTIME_COMPONENT_VALTYPE_OPTION:
    made.kind = WASMTIME_COMPONENT_OPTION;
    made.of.option = NULL;
    return made;
  case WASMTIME_COMPONENT_VALTYPE_ENUM:
    made.kind = WASMTIME_COMPONENT_ENUM;
    wasmtime_component_enum_type_names_nth(type->of.enum_, 0, &name, &size);
    wasm_name_new(&made.of.enumeration, size, name);
    return made;
  case WASMTIME_COMPONENT_VALTYPE_RECORD:
    made.kind = WASMTIME_COMPONENT_RECORD;
    wasmtime_component_valrecord_new_uninit(&made.of.record,
                                            wasmtime_component_record_type_field_count(type->of.record));
    for (size_t i = 0; i < made.of.record.size; i++) {
      wasmtime_component_record_type_field_nth(type->of.record, i, &name, &size, &part);
      wasm_name_new(&made.of.record.data[i].name, size, name);
      made.of.record.data[i].val = made_and_deleted(&part);
    }
    return made;
  case WASMTIME_COMPONENT_VALTYPE_VARIANT: {
    bool has_payload = false;
    made.kind = WASMTIME_COMPONENT_VARIANT;
    wasmtime_component_variant_type_case_nth(type->of.variant, 0, &name, &size, &has_payload, &part);
    wasm_name_new(&made.of.variant.discriminant, size, name);
    made.of.variant.val = NULL;
    if (has_payload) {
      value payload = made_and_deleted(&part);
      made.of.variant.val = wasmtime_component_val_new(&payload);
    }
    return made;
  }
  }
  memset(&made.of, 0, sizeof made.of);
  return made;
}

static value made_and_deleted(wasmtime_component_valtype_t *type) {
  value result = made(type);
  wasmtime_component_valtype_delete(type);
  return result;
}

bool call_begin(call *c, provider *p, const char *function) {
  memset(c, 0, sizeof *c);
  c->provider = p;
  c->result.kind = WASMTIME_COMPONENT_BOOL;
  bool found = false;
  for (size_t i = 0; i < INTERFACE_COUNT && !found; i++) {
    char name[64];
    int size = snprintf(name, sizeof name, PACKAGE "/%s@" VERSION, INTERFACES[i]);
    wasmtime_component_export_index_t *outer =
        wasmtime_component_instance_get_export_index(&p->instance, p->context, NULL, name, size);
    if (!outer)
      continue;
    wasmtime_component_export_index_t *inner = wasmtime_component_instance_get_export_index(
        &p->instance, p->context, outer, function, strlen(function));
    wasmtime_component_export_index_delete(outer);
    if (!inner)
      continue;
    found = wasmtime_component_instance_get_func(&p->instance, p->context, inner, &c->function);
    wasmtime_component_export_index_delete(inner);
  }
  if (!found)
    return false;
  wasmtime_component_func_type_t *type = wasmtime_component_func_type(&c->function, p->context);
  c->count = wasmtime_component_func_type_param_count(type);
  for (size_t i = 0; i < c->count && i < sizeof c->arguments / sizeof *c->arguments; i++) {
    wasmtime_component_valtype_t part;
    const char *name;
    size_t size;
    wasmtime_component_func_type_param_nth(type, i, &name, &size, &part);
    c->arguments[i] = made_and_deleted(&part);
  }
  wasmtime_component_func_type_delete(type);
  return true;
}

wasmtime_error_t *call_run(call *c) {
  wasmtime_error_t *error =
      wasmtime_component_func_call(&c->function, c->provider->context, c->arguments, c->count, &c->result, 1);
  c->ok = !error && c->result.kind == WASMTIME_COMPONENT_RESULT && c->result.of.result.is_ok;
  return error ? error : wasmtime_component_func_post_return(&c->function, c->provider->context);
}

value *call_payload(call *c) { return c->result.of.result.val; }

void call_end(call *c) {
  for (size_t i = 0; i < c->count; i++)
    wasmtime_component_val_delete(&c->arguments[i]);
  wasmtime_component_val_delete(&c->result);
}

value *value_payload(value *v) {
  return v->kind == WASMTIME_COMPONENT_OPTION ? v->of.option : v->kind == WASMTIME_COMPONENT_VARIANT ? v->of.variant.val : NULL;
}

value *value_at(value *whole, const char *path) {
  while (*path) {
    size_t size = strcspn(path, ".");
    if (whole->kind == WASMTIME_COMPONENT_OPTION && !(whole = whole->of.option))
      return NULL;
    if (whole->kind != WASMTIME_COMPONENT_RECORD)
      return NULL;
    value *found = NULL;
    for (size_t i = 0; i < whole->of.record.size; i++) {
      wasmtime_component_valrecord_entry_t *entry = &whole->of.record.data[i];
      if (entry->name.size == size && !memcmp(entry->name.data, path, size))
        found = &entry->val;
    }
    if (!found)
      return NULL;
    whole = found;
    path += size + (path[size] == '.');
  }
  return whole;
}

static void replace(value *place, value with) {
  wasmtime_component_val_delete(place);
  *place = with;
}

static value text_of(const char *text, size_t size) {
  value made = {.kind = WASMTIME_COMPONENT_STRING};
  wasm_name_new(&made.of.string, size, text);
  return made;
}

void value_set_text(value *place, const char *text, size_t size) { replace(place, text_of(text, size)); }

void value_set_u32(value *place, uint32_t number) {
  replace(place, (value){.kind = WASMTIME_COMPONENT_U32, .of = {.u32 = number}});
}

void value_set_u64(value *place, uint64_t number) {
  replace(place, (value){.kind = WASMTIME_COMPONENT_U64, .of = {.u64 = number}});
}

void value_set_bytes(value *place, const char *bytes, size_t size) {
  value made = {.kind = WASMTIME_COMPONENT_LIST};
  wasmtime_component_vallist_new_uninit(&made.of.list, size);
  for (size_t i = 0; i < size; i++)
    made.of.list.data[i] = (value){.kind = WASMTIME_COMPONENT_U8, .of = {.u8 = bytes[i]}};
  replace(place, made);
}

void value_set_texts(value *place, size_t count, const char *texts[]) {
  value made = {.kind = WASMTIME_COMPONENT_LIST};
  wasmtime_component_vallist_new_uninit(&made.of.list, count);
  for (size_t i = 0; i < count; i++)
    made.of.list.data[i] = text_of(texts[i], strlen(texts[i]));
  replace(place, made);
}

void value_set_pairs(value *place, size_t count, const char *names[], const char *values[]) {
  value made = {.kind = WASMTIME_COMPONENT_LIST};
  wasmtime_component_vallist_new_uninit(&made.of.list, count);
  for (size_t i = 0; i < count; i++) {
    value pair = {.kind = WASMTIME_COMPONENT_TUPLE};
    wasmtime_component_valtuple_new_uninit(&pair.of.tuple, 2);
    pair.of.tuple.data[0] = text_of(names[i], strlen(names[i]));
    pair.of.tuple.data[1] = text_of(values[i], strlen(values[i]));
    made.of.list.data[i] = pair;
  }
  replace(place, made);
}

void value_set_record(value *place, size_t count, const char *names[]) {
  value made = {.kind = WASMTIME_COMPONENT_RECORD};
  wasmtime_component_valrecord_new_uninit(&made.of.record, count);
  for (size_t i = 0; i < count; i++) {
    wasm_name_new_from_string(&made.of.record.data[i].name, names[i]);
    made.of.record.data[i].val = (value){.kind = WASMTIME_COMPONENT_OPTION, .of = {.option = NULL}};
  }
  replace(place, made);
}

void value_set_variant(value *place, const char *name, value *payload) {
  value made = {.kind = WASMTIME_COMPONENT_VARIANT};
  wasm_name_new(&made.of.variant.discriminant, strlen(name), name);
  made.of.variant.val = payload ? wasmtime_component_val_new(payload) : NULL;
  replace(place, made);
}

void value_set_some(value *place, value *payload) {
  replace(place, (value){.kind = WASMTIME_COMPONENT_OPTION, .of = {.option = wasmtime_component_val_new(payload)}});
}

wasm_name_t value_text(const value *v) {
  switch (v->kind) {
  case WASMTIME_COMPONENT_STRING:
    return v->of.string;
  case WASMTIME_COMPONENT_ENUM:
    return v->of.enumeration;
  case WASMTIME_COMPONENT_VARIANT:
    return v->of.variant.discriminant;
  default:
    return (wasm_name_t){0, NULL};
  }
}

size_t value_bytes(const value *list, char *into, size_t size) {
  size_t count = list->of.list.size;
  for (size_t i = 0; i < count && i < size; i++)
    into[i] = list->of.list.data[i].of.u8;
  return count;
}
