// Package lua holds the Redis scripts, one file each. The head of a file lists its keys, its
// arguments and every value it returns. All keys of a call share the hash tag of one product,
// or there is one key only.
//
// The scripts that end what was begun, and those by which operators help, have a first line with the flag allow-oom:
// they free memory, or take a little that is bounded, so that a Redis that is full can be drained. Those that
// begin something (reserve, readmit, lend, load) have none, and a full Redis refuses them before they change anything.
package lua

import _ "embed"

// The sources of the scripts.
var (
	//go:embed load.lua
	Load string
	//go:embed reserve.lua
	Reserve string
	//go:embed cancel.lua
	Cancel string
	//go:embed settle.lua
	Settle string
	//go:embed restock.lua
	Restock string
	//go:embed configure.lua
	Configure string
	//go:embed claim.lua
	Claim string
	//go:embed readmit.lua
	Readmit string
	//go:embed pause.lua
	Pause string
	//go:embed correct.lua
	Correct string
	//go:embed accept.lua
	Accept string
	//go:embed lower.lua
	Lower string
	//go:embed lend.lua
	Lend string
	//go:embed unload.lua
	Unload string
	//go:embed report.lua
	Report string
	//go:embed fleet.lua
	Fleet string
	//go:embed put.lua
	Put string
	//go:embed remember.lua
	Remember string
)
