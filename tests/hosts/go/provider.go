package main

// #cgo LDFLAGS: -lwasmtime
// #include <stdlib.h>
// #include "../c/provider.c"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

// Provider is an instance of a provider component. A call occupies it and a thread of the operating system, and calls
// from several goroutines run one after another: open a provider for each that has to run at the same time.
type Provider struct {
	lock sync.Mutex
	c    *C.provider
}

// Refused is an error that a function of the interface returned.
type Refused struct {
	Kind    string
	Message string
}

func (r *Refused) Error() string { return r.Message }

// Value is a place in an argument or a result. It is valid until the end of the function that received it.
type Value struct{ c *C.value }

// Open compiles a component and instantiates it with these variables as its environment.
func Open(path string, environment map[string]string) (*Provider, error) {
	var names, values []*C.char
	for name, value := range environment {
		names, values = append(names, C.CString(name)), append(values, C.CString(value))
	}
	file := C.CString(path)
	defer free(append(append(names, values...), file))
	var message [1000]C.char
	opened := C.provider_open(file, C.size_t(len(names)), first(names), first(values), &message[0], C.size_t(len(message)))
	if opened == nil {
		return nil, errors.New(C.GoString(&message[0]))
	}
	provider := &Provider{c: opened}
	runtime.SetFinalizer(provider, (*Provider).Close)
	return provider, nil
}

// Close frees the instance. A second call does nothing.
func (p *Provider) Close() {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.c != nil {
		C.provider_close(p.c)
		p.c = nil
	}
}

// Call calls a function of the interface. `prepare` changes the arguments, of which each has a neutral value of its type;
// `result` reads what the function returned. Both may be nil.
func (p *Provider) Call(function string, prepare func(arguments []Value), result func(Value)) error {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.c == nil {
		return errors.New("the provider is closed")
	}
	name := C.CString(function)
	defer free([]*C.char{name})
	// The C library keeps pointers into the call, which therefore must not be memory of Go.
	call := (*C.call)(C.calloc(1, C.size_t(unsafe.Sizeof(C.call{}))))
	defer C.free(unsafe.Pointer(call))
	if !C.call_begin(call, p.c, name) {
		return fmt.Errorf("the component does not export %s", function)
	}
	defer C.call_end(call)
	if prepare != nil {
		arguments := make([]Value, call.count)
		for i := range arguments {
			arguments[i] = Value{&call.arguments[i]}
		}
		prepare(arguments)
	}
	if trap := C.call_run(call); trap != nil {
		var message C.wasm_byte_vec_t
		C.wasmtime_error_message(trap, &message)
		defer C.wasm_byte_vec_delete(&message)
		defer C.wasmtime_error_delete(trap)
		return errors.New(C.GoStringN(message.data, C.int(message.size)))
	}
	payload := Value{C.call_payload(call)}
	if !call.ok {
		return &Refused{Kind: payload.At("kind").Text(), Message: payload.At("message").Text()}
	}
	if result != nil {
		result(payload)
	}
	return nil
}

// At returns the part at a path of field names, such as `image.source`. Options on the way are followed. Exists tells
// whether there is one.
func (v Value) At(path string) Value {
	if v.c == nil {
		return v
	}
	text := C.CString(path)
	defer free([]*C.char{text})
	return Value{C.value_at(v.c, text)}
}

// Exists returns whether the place has a value.
func (v Value) Exists() bool { return v.c != nil }

// Payload returns the payload of a variant or option.
func (v Value) Payload() Value { return Value{C.value_payload(v.c)} }

// Text returns a string, or the name of the case of an enum or variant.
func (v Value) Text() string {
	name := C.value_text(v.c)
	return C.GoStringN(name.data, C.int(name.size))
}

// Bytes returns a copy of a list of bytes.
func (v Value) Bytes() []byte {
	bytes := make([]byte, C.value_bytes(v.c, nil, 0))
	if len(bytes) > 0 {
		C.value_bytes(v.c, (*C.char)(unsafe.Pointer(&bytes[0])), C.size_t(len(bytes)))
	}
	return bytes
}

// Int32 returns a signed number of 32 bits, and 0 for a place without a value.
func (v Value) Int32() int32 {
	if v.c == nil {
		return 0
	}
	return *(*int32)(unsafe.Pointer(&v.c.of))
}

// SetText replaces the value by a string.
func (v Value) SetText(text string) {
	copied := C.CString(text)
	defer free([]*C.char{copied})
	C.value_set_text(v.c, copied, C.size_t(len(text)))
}

// SetUint32 replaces the value by a number of 32 bits.
func (v Value) SetUint32(number uint32) { C.value_set_u32(v.c, C.uint32_t(number)) }

// SetUint64 replaces the value by a number of 64 bits.
func (v Value) SetUint64(number uint64) { C.value_set_u64(v.c, C.uint64_t(number)) }

// SetBytes replaces the value by a list of bytes.
func (v Value) SetBytes(bytes []byte) {
	copied := C.CBytes(bytes)
	defer C.free(copied)
	C.value_set_bytes(v.c, (*C.char)(copied), C.size_t(len(bytes)))
}

// SetTexts replaces the value by a list of strings.
func (v Value) SetTexts(texts ...string) {
	copied := strings(texts)
	defer free(copied)
	C.value_set_texts(v.c, C.size_t(len(texts)), first(copied))
}

// SetPair replaces the value by a list with one pair of strings.
func (v Value) SetPair(name, value string) {
	copied := strings([]string{name, value})
	defer free(copied)
	C.value_set_pairs(v.c, 1, &copied[0], &copied[1])
}

// SetCase replaces the value by a case of a variant, with the payload that `payload` makes.
func (v Value) SetCase(name string, payload func(Value)) {
	copied := C.CString(name)
	defer free([]*C.char{copied})
	made := scratch(payload)
	defer C.free(unsafe.Pointer(made))
	C.value_set_variant(v.c, copied, made)
}

// SetSome replaces the value by an option with the value that `payload` makes.
func (v Value) SetSome(payload func(Value)) {
	made := scratch(payload)
	defer C.free(unsafe.Pointer(made))
	C.value_set_some(v.c, made)
}

// SetRecord replaces the value by a record with fields that are absent options. They are set by `At`.
func (v Value) SetRecord(names ...string) {
	copied := strings(names)
	defer free(copied)
	C.value_set_record(v.c, C.size_t(len(names)), first(copied))
}

// scratch makes a value in memory of C.
func scratch(make func(Value)) *C.value {
	made := (*C.value)(C.calloc(1, C.size_t(unsafe.Sizeof(C.value{}))))
	make(Value{made})
	return made
}

func strings(texts []string) []*C.char {
	copied := make([]*C.char, len(texts))
	for i, text := range texts {
		copied[i] = C.CString(text)
	}
	return copied
}

func first(texts []*C.char) **C.char {
	if len(texts) == 0 {
		return nil
	}
	return &texts[0]
}

func free(texts []*C.char) {
	for _, text := range texts {
		C.free(unsafe.Pointer(text))
	}
}
