package redis

import (
	"cmp"
	"context"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Observe has f called after each call, with its name (that of the script, or of the command, or "pipeline"), how long
// it took and how it ended. It is called before the connection is used.
func (c *Client) Observe(f func(call string, took time.Duration, err error)) {
	c.AddHook(observer(f))
}

// observer is a hook of the client that measures.
type observer func(call string, took time.Duration, err error)

func (observer) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (o observer) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmd)
		name := cmd.Name()
		if setsUp(name) {
			return err
		}

		if args := cmd.Args(); (name == "evalsha" || name == "eval") && len(args) > 1 {
			if text, ok := args[1].(string); ok && scriptNames[text] != "" {
				script := scriptNames[text]
				name = cmp.Or(callNames[script], script)
			}
		}
		o(name, time.Since(start), failure(err))
		return err
	}
}

func (o observer) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmds)
		if len(cmds) > 0 && setsUp(cmds[0].Name()) {
			return err
		}
		o("pipeline", time.Since(start), failure(err))
		return err
	}
}

// setsUp reports whether a command is one with which the client begins a connection. It tries some that a server need
// not know, and if a connection cannot be set up the call that needs it fails.
func setsUp(command string) bool { return command == "hello" || command == "client" }

// failure is err, unless it only says that a key, or a script, is not there yet.
func failure(err error) error {
	if errors.Is(err, goredis.Nil) || goredis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	return err
}
