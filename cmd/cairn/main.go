// Command cairn is the whole product: server, cluster tools and client. See cairn help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/cairn-storage/cairn/cmd/cairn/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cli.Main(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}
