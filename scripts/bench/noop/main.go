// Noop is a baseline of ctl bench: a server that reads a request and answers 202, and does nothing else. Nothing that
// answers over HTTP on the same machine, with the same load generator, can be faster by much.
package main

import (
	"flag"
	"log"

	"github.com/valyala/fasthttp"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	log.Fatal(fasthttp.ListenAndServe(*addr, func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusAccepted)
	}))
}
