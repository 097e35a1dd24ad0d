package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd prints the script that a shell sources. The script asks ctl itself what may come next, so that it need
// not be made anew for each version.
type completionCmd struct {
	Shell string   `arg:"" enum:"bash,zsh,fish" help:"Shell: bash, zsh or fish. Source what is printed: source <(ctl completion bash)"`
	Words []string `arg:"" optional:"" passthrough:"" help:"Words of a command line: prints what the last one may be completed to."`
}

// scripts are what a shell needs, by its name.
var scripts = map[string]string{
	"bash": `_ctl() {
	COMPREPLY=($("${COMP_WORDS[0]}" completion bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _ctl ctl
`,
	"zsh": `#compdef ctl
_ctl() {
	local -a next
	next=(${(f)"$("${words[1]}" completion zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
	if (( $#next )); then compadd -a next; else _files; fi
}
compdef _ctl ctl
`,
	"fish": `complete -c ctl -f -a '(set -l words (commandline -opc) (commandline -ct); $words[1] completion fish -- $words[2..] 2>/dev/null)'
`,
}

func (c *completionCmd) Run() error {
	if len(c.Words) == 0 {
		fmt.Print(scripts[c.Shell])
		return nil
	}
	parser, err := newParser()
	if err != nil {
		return err
	}
	words := c.Words
	if words[0] == "--" {
		words = words[1:]
	}
	for _, next := range completions(parser.Model.Node, words) {
		fmt.Fprintln(os.Stdout, next)
	}
	return nil
}

// completions are what the last of the words may become, of the commands, flags and values that are known.
func completions(node *kong.Node, words []string) []string {
	var flag *kong.Flag // the one whose value comes next

	for _, word := range words[:max(len(words)-1, 0)] {
		switch {
		case word == "--":
			return nil // what follows is another program's
		case flag != nil:
			flag = nil
		case strings.HasPrefix(word, "--"):
			name, _, hasValue := strings.Cut(word[2:], "=")
			flags := flagsOf(node)
			i := slices.IndexFunc(flags, func(f *kong.Flag) bool { return f.Name == name })
			if i >= 0 && !hasValue && !flags[i].IsBool() {
				flag = flags[i]
			}
		default:
			i := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == word })
			if i >= 0 {
				node = node.Children[i]
			}
		}
	}

	last := ""
	if len(words) > 0 {
		last = words[len(words)-1]
	}

	var known []string
	switch {
	case flag != nil:
		known = flag.EnumSlice()
	case strings.HasPrefix(last, "-"):
		for _, f := range flagsOf(node) {
			known = append(known, "--"+f.Name)
		}
	default:
		for _, child := range node.Children {
			known = append(known, child.Name)
		}
		for _, argument := range node.Positional {
			known = append(known, argument.EnumSlice()...)
		}
	}

	return slices.DeleteFunc(known, func(word string) bool { return word == "" || !strings.HasPrefix(word, last) })
}

// flagsOf are the flags that a command takes, its own and those of the commands that it is part of.
func flagsOf(node *kong.Node) []*kong.Flag { return slices.Concat(node.AllFlags(true)...) }
