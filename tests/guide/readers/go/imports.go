// The packages that the program of docs/guide/read-it.md imports: `go mod vendor` fetches those.

package main

import (
	_ "github.com/nats-io/nats.go"
	_ "github.com/nats-io/nats.go/jetstream"
)
