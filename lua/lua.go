// Package lua holds the Redis scripts, one file each. The head of a file lists its keys, its
// arguments and every value it returns. All keys of a call share the hash tag of one product,
// or there is one key only.
//
// The scripts that end what was begun, and those by which operators help, have a first line with the flag allow-oom:
// they free memory, or take a little that is bounded, so that a Redis that is full can be drained. Those that
// begin something (reserve, readmit, transfer, load) have none, and a full Redis refuses them before they change
// anything.
package lua

import (
	"embed"
	"strings"
)

//go:embed *.lua
var files embed.FS

// Script is the text of the script in a file of that name, with the prelude before it. It panics if there is none.
func Script(name string) string {
	text := read(name)
	flags := "" // they must be the first line
	if strings.HasPrefix(text, "#!") {
		end := strings.IndexByte(text, '\n') + 1
		flags, text = text[:end], text[end:]
	}
	return flags + read("prelude") + text
}

func read(name string) string {
	text, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic(err)
	}
	return string(text)
}
