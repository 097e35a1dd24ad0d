package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// command is what stands as code in the last column of a row of docs/track-record.md.
	command = regexp.MustCompile("(?m)^\\|.*`([^`]+)` \\|$")
	drillOf = regexp.MustCompile(`^go run \./scripts/drill --only '(.+)'$`)
	testOf  = regexp.MustCompile(`^go test(?: -\S+)*? -run ('[^']+'|[\w/]+) \./(\S+)$`)
)

// TestTrackRecord: each row of the track record ends with a command, whose break or tests exist.
func TestTrackRecord(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "docs/track-record.md"))
	if err != nil {
		t.Fatal(err)
	}

	found := command.FindAllSubmatch(page, -1)
	for _, match := range found {
		for single := range strings.SplitSeq(string(match[1]), " && ") {
			checkCommand(t, single)
		}
	}

	// Three tables have a head and a line below it each, and all other rows have a command.
	if rows := bytes.Count(page, []byte("\n|")) - 2*3; rows != len(found) {
		t.Errorf("%d rows of docs/track-record.md have a command at their end, of %d", len(found), rows)
	}
}

func checkCommand(t *testing.T, command string) {
	t.Helper()
	if match := drillOf.FindStringSubmatch(command); match != nil {
		pattern, err := regexp.Compile(match[1])
		if err != nil || !slices.ContainsFunc(changes, func(c change) bool { return pattern.MatchString(c.what) }) {
			t.Errorf("%s: there is no such break (%v)", command, err)
		}
		return
	}

	match := testOf.FindStringSubmatch(command)
	if match == nil {
		t.Errorf("%s: neither a break of the drill nor a test", command)
		return
	}
	for name := range strings.SplitSeq(strings.Trim(match[1], "'^$()"), "|") {
		if name, _, _ := strings.Cut(name, "/"); !hasTest(t, match[2], name) {
			t.Errorf("%s: there is no %s", command, name)
		}
	}
}
