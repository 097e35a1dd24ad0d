package stock

import "stampede/internal/redis"

var (
	loadScript      = redis.NewScript("load")
	reserveScript   = redis.NewScript("reserve")
	cancelScript    = redis.NewScript("cancel")
	settleScript    = redis.NewScript("settle")
	acceptScript    = redis.NewScript("accept")
	restockScript   = redis.NewScript("restock")
	returnScript    = redis.NewScript("return")
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
