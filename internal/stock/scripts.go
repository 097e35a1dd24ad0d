package stock

import (
	"stampede/internal/redis"
	"stampede/lua"
)

var (
	loadScript      = redis.NewScript("load")
	reserveScript   = redis.NewScript("reserve")
	cancelScript    = redis.NewScript("cancel")
	settleScript    = redis.NewScript("settle")
	acceptScript    = redis.NewScript("accept")
	restockScript   = redis.NewScript("restock")
	claimScript     = redis.NewScript("claim")
	readmitScript   = redis.NewScript("readmit")
	pauseScript     = redis.NewScript("pause")
	correctScript   = redis.NewScript("correct")
	lowerScript     = redis.NewScript("lower")
	unloadScript    = redis.NewScript("unload")
	transferScript  = redis.NewScript("transfer")
	rememberScript  = redis.NewScript("remember")
	configureScript = redis.NewScript("configure")
)

// putText is the text of put.lua, for pipelines, which cannot fall back on it when Redis does not know the script's
// hash.
var putText = lua.Script("put")
