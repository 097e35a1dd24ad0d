// Local-sqs is the local SQS in a process of its own, for ctl bench: so that what it uses of the processors is counted
// apart from the load generator.
package main

import (
	"context"
	"flag"
	"log"
	"os/signal"
	"syscall"

	"stampede/localstack/sqs"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	server, err := sqs.Start(sqs.Options{Addr: *addr})
	if err != nil {
		log.Fatal(err)
	}
	<-ctx.Done()
	if err := server.Close(); err != nil {
		log.Fatal(err)
	}
}
