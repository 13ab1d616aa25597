// Runs a provider component over wasmtime's C API by cgo, and makes the checks of the other stock hosts.
//
//	host COMPONENT IMAGE     # with the variables that `sandbox-host gateway` prints, or DOCKER_HOST
//
// IMAGE is the reference of an image in a registry. wasmtime's HTTP client speaks HTTP/1.1 only and adds no
// credentials, so the provider for Modal needs the gateway. The provider for Docker needs none.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
)

var passed int

func check(what string, holds bool) {
	if !holds {
		fail(fmt.Errorf("failed: %s", what))
	}
	fmt.Println("ok ", what)
	passed++
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// freshID returns a new id, such as every sandbox and command needs.
func freshID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		fail(err)
	}
	return hex.EncodeToString(id[:])
}

// environment returns the variables of this process that providers read, with another token if one is given.
func environment(token string) map[string]string {
	variables := map[string]string{}
	for _, name := range []string{"MODAL_SERVER_URL", "MODAL_GRPC_WIRE", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "DOCKER_HOST"} {
		if value, set := os.LookupEnv(name); set {
			variables[name] = value
		}
	}
	if token != "" {
		variables["MODAL_TOKEN_ID"], variables["MODAL_TOKEN_SECRET"] = token, token
	}
	return variables
}

func open(path, token string) *Provider {
	provider, err := Open(path, environment(token))
	if err != nil {
		fail(err)
	}
	return provider
}

func call(provider *Provider, function string, prepare func([]Value), result func(Value)) {
	if err := provider.Call(function, prepare, result); err != nil {
		fail(fmt.Errorf("%s: %w", function, err))
	}
}

// build returns the id of an image of a registry.
func build(provider *Provider, reference string) (id string) {
	var cursor string
	read := func(progress Value) {
		cursor = progress.At("cursor").Text()
		if built := progress.At("image.id"); built.Exists() {
			id = built.Text()
		}
	}
	call(provider, "start-build", func(arguments []Value) {
		arguments[0].At("source").SetCase("registry", func(image Value) {
			image.SetRecord("reference", "login")
			image.At("reference").SetText(reference)
		})
	}, read)
	for id == "" {
		call(provider, "read-build", func(arguments []Value) {
			arguments[0].SetText(cursor)
			arguments[1].SetUint32(65536)
			arguments[2].SetUint64(10000)
		}, read)
	}
	return id
}

// Result is what a command did, as far as this program needs it.
type Result struct {
	verdict        string
	code           int32
	stdout, stderr []byte
}

// run runs a command in a sandbox and keeps at most two mebibytes of its output. wasmtime limits a result to 128 MiB of
// values, and a byte of a list is a value of 48 bytes.
func run(provider *Provider, sandbox string, stdin []byte, argv ...string) (result Result) {
	call(provider, "run", func(arguments []Value) {
		arguments[0].SetText(sandbox)
		arguments[1].At("id").SetText(freshID())
		arguments[1].At("argv").SetTexts(argv...)
		arguments[1].At("timeout").SetSome(func(limit Value) { limit.SetUint64(30000) })
		arguments[2].SetBytes(stdin)
		arguments[3].At("stdout-max").SetUint64(2 << 20)
		arguments[3].At("stderr-max").SetUint64(1 << 20)
	}, func(value Value) {
		result.verdict = value.At("verdict").Text()
		result.code = value.At("verdict").Payload().Int32()
		result.stdout = value.At("stdout.data").Bytes()
		result.stderr = value.At("stderr.data").Bytes()
	})
	return result
}

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: host COMPONENT IMAGE"))
	}
	component, reference := os.Args[1], os.Args[2]
	if os.Getenv("MODAL_TOKEN_ID") != "" {
		other := open(component, "guess")
		var refused *Refused
		err := other.Call("check", nil, nil)
		check("a wrong gateway token is refused", errors.As(err, &refused) && refused.Kind == "unauthenticated")
		other.Close()
	}

	provider := open(component, "")
	defer provider.Close()
	call(provider, "describe", nil, func(description Value) {
		check("describe", description.At("name").Text() != "")
	})

	image := build(provider, reference)
	check("an image", len(image) > 3)

	var sandbox string
	call(provider, "create", func(arguments []Value) {
		spec := arguments[0]
		spec.At("image.source").SetCase("id", func(id Value) { id.SetText(image) })
		spec.At("env").SetPair("GREETING", "hello")
		spec.At("tags").SetPair("from", "go")
		spec.At("lifetime").SetSome(func(lifetime Value) { lifetime.SetUint64(600000) })
		spec.At("key").SetSome(func(key Value) { key.SetText(freshID()) })
	}, func(info Value) { sandbox = info.At("id").Text() })
	check("a sandbox", len(sandbox) > 3)

	script := `printf '%s %s' "$GREETING" "$(cat)"; echo err >&2; exit 7`
	result := run(provider, sandbox, []byte("from stdin"), "sh", "-c", script)
	check("the exit code", result.verdict == "exited" && result.code == 7)
	check("standard output", string(result.stdout) == "hello from stdin")
	check("standard error", string(result.stderr) == "err\n")

	big := run(provider, sandbox, nil, "head", "-c", "1000000", "/dev/zero")
	check("a million bytes", bytes.Equal(big.stdout, make([]byte, 1000000)))

	call(provider, "terminate", func(arguments []Value) { arguments[0].SetText(sandbox) }, nil)
	call(provider, "wait", func(arguments []Value) {
		arguments[0].SetText(sandbox)
		arguments[1].SetUint64(30000)
	}, func(end Value) { check("the end", end.Payload().Exists() && end.Payload().Text() == "terminated") })
	fmt.Printf("%d passed, 0 failed\n", passed)
}
