package stock

import (
	"context"

	"github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/lua"
)

var (
	loadScript     = newScript("load")
	reserveScript  = newScript("reserve")
	cancelScript   = newScript("cancel")
	settleScript   = newScript("settle")
	acceptScript   = newScript("accept")
	restockScript  = newScript("restock")
	claimScript    = newScript("claim")
	readmitScript  = newScript("readmit")
	pauseScript    = newScript("pause")
	correctScript  = newScript("correct")
	lowerScript    = newScript("lower")
	unloadScript   = newScript("unload")
	transferScript = newScript("transfer")
	reportScript   = newScript("report")
	fleetScript    = newScript("fleet")
	putScript      = newScript("put")

	rememberScript = newScript("remember")

	configureScript = newScript("configure")
)

// putText is the text of putScript, for pipelines, which cannot fall back on it when Redis does not know the script's
// hash.
var putText = lua.Script("put")

// scriptNames names the scripts by what a call of one says: its hash, or its text the first time.
var scriptNames = make(map[string]string)

// callNames are what calls of scripts are called in metrics, where it is not the name of the script.
var callNames = map[string]string{"transfer": "lend"}

func newScript(name string) *redis.Script {
	text := lua.Script(name)
	s := redis.NewScript(text)
	scriptNames[s.Hash()], scriptNames[text] = name, name
	return s
}

// client is a connection to Redis that sends each script call once. A Cluster client repeats a command
// whose answer it has lost, whatever MaxRetries says, unless the command itself forbids it. It still
// follows redirections: a node that redirects has not carried the command out.
type client struct{ redis.UniversalClient }

// once is a command that is not repeated.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

func (c client) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return c.once(ctx, "eval", script, keys, args)
}

func (c client) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return c.once(ctx, "evalsha", sha, keys, args)
}

func (c client) once(ctx context.Context, name, script string, keys []string, args []any) *redis.Cmd {
	all := append(make([]any, 0, 3+len(keys)+len(args)), name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	cmd.SetFirstKeyPos(3)
	_ = c.Process(ctx, once{cmd}) // cmd holds the error
	return cmd
}

// run calls a script, between the failpoints of a step.
func (s *Stock) run(ctx context.Context, step failpoint.Step, script *redis.Script, keys []string,
	args ...any) *redis.Cmd {
	if err := failpoint.Before(step); err != nil {
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(err)
		return cmd
	}
	cmd := script.Run(ctx, s.rdb, keys, args...)
	if cmd.Err() == nil {
		if err := failpoint.After(step); err != nil {
			cmd.SetErr(err)
		}
	}
	return cmd
}
