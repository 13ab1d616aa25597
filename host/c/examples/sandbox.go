// The same in Go with cgo. A call that is waited for occupies a thread of Go; sandbox_call_start_queued avoids that.
package main

/*
#cgo LDFLAGS: -lsandbox_host
#include <stdlib.h>
#include "sandbox_host.h"
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"os"
	"unsafe"
)

type object = map[string]any // JSON
var host = C.sandbox_host_open()

// Calls a method and returns its result, and the first byte string of it.
func call(method string, arguments object, data string) (object, []byte) {
	text, _ := json.Marshal(arguments)
	name, input, bytes := C.CString(method), C.CString(string(text)), C.CString(data)
	for _, copied := range []*C.char{name, input, bytes} {
		defer C.free(unsafe.Pointer(copied))
	}
	done := C.sandbox_call_run(host, name, input, unsafe.Pointer(bytes), C.size_t(len(data)))
	defer C.sandbox_call_free(done)
	var reply object
	_ = json.Unmarshal([]byte(C.GoString(C.sandbox_call_json(done, nil))), &reply)
	if C.sandbox_call_status(done) != C.SANDBOX_OK {
		panic(fmt.Sprint(method, ": ", reply["message"]))
	}
	var size C.size_t
	part := C.sandbox_call_part(done, 0, &size)
	return reply, C.GoBytes(part, C.int(size))
}

func main() {
	opened, _ := call("provider.open", object{"component": os.Args[1]}, "")
	created, _ := call("sandbox.create", object{"provider": opened["provider"], "spec": object{"image": "debian"}}, "")
	at := func(key string, value any) object {
		return object{"provider": opened["provider"], "sandbox": created["info"].(object)["id"], key: value}
	}
	line := "for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 7"
	started, _ := call("process.start", at("command", object{"shell": line}), "")
	for end := false; !end; {
		piece, bytes := call("process.read", object{"process": started["process"], "stream": "stdout"}, "")
		os.Stdout.Write(bytes)
		end = piece["end"].(bool)
	}
	verdict, _ := call("process.wait", object{"process": started["process"]}, "")
	fmt.Println("exit code", verdict["exited"])
	call("file.write", at("path", "/srv/hello"), "hello from Go\n")
	_, content := call("file.read", at("path", "/srv/hello"), "")
	call("sandbox.terminate", at("user", nil), "")
	fmt.Print(string(content), "terminated\n")
	C.sandbox_host_close(host)
}
