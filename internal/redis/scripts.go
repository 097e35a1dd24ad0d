package redis

import (
	"context"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/lua"
)

// scriptNames names the scripts by what a call of one says: its hash, or its text the first time.
var scriptNames = make(map[string]string)

// callNames are what calls of scripts are called in metrics, where it is not the name of the script.
var callNames = map[string]string{"transfer": "lend"}

// NewScript makes a script of lua/ known by its name. It panics if there is none.
func NewScript(name string) *goredis.Script {
	text := lua.Script(name)
	s := goredis.NewScript(text)
	scriptNames[s.Hash()], scriptNames[text] = name, name
	return s
}

// once is a command that is not repeated. A Cluster client repeats a command whose answer it has lost, whatever
// MaxRetries says, unless the command itself forbids it. It still follows redirections: a node that redirects has not
// carried the command out.
type once struct{ *goredis.Cmd }

func (once) NoRetry() bool { return true }

// Eval calls a script by its text, once.
func (c *Client) Eval(ctx context.Context, script string, keys []string, args ...any) *goredis.Cmd {
	return c.once(ctx, "eval", script, keys, args)
}

// EvalSha calls a script by its hash, once.
func (c *Client) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *goredis.Cmd {
	return c.once(ctx, "evalsha", sha, keys, args)
}

func (c *Client) once(ctx context.Context, name, script string, keys []string, args []any) *goredis.Cmd {
	all := append(make([]any, 0, 3+len(keys)+len(args)), name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := goredis.NewCmd(ctx, append(all, args...)...)
	cmd.SetFirstKeyPos(3)
	_ = c.Process(ctx, once{cmd}) // cmd holds the error
	return cmd
}

// Run calls a script, between the failpoints of a step.
func (c *Client) Run(ctx context.Context, step failpoint.Step, script *goredis.Script, keys []string,
	args ...any) *goredis.Cmd {
	if err := failpoint.Before(step); err != nil {
		cmd := goredis.NewCmd(ctx)
		cmd.SetErr(err)
		return cmd
	}
	cmd := script.Run(ctx, c, keys, args...)
	if cmd.Err() == nil {
		if err := failpoint.After(step); err != nil {
			cmd.SetErr(err)
		}
	}
	return cmd
}
