// Package configtest says which variables a program reads, so that tests can hold files that set them to it.
package configtest

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"
)

// Variable is what a program says of one in its -help.
type Variable struct {
	Name     string
	Default  string // empty if there is none
	Required bool
}

var line = regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+) {2,}(\S+) {2,}\S`)

// Variables builds ./edge, ./worker or ./ctl, from the repository's root, and returns the variables that its --help
// lists; of ctl, that of a command. Those of Go and of the SDKs, which every program reads, are not among them: see
// Standard.
func Variables(t testing.TB, root, program string, command ...string) []Variable {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args := append([]string{"run", "./" + program}, command...)
	cmd := exec.CommandContext(ctx, "go", append(args, "--help")...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0") // as in the images
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s --help: %v\n%s", program, err, out)
	}
	var all []Variable
	for _, m := range line.FindAllStringSubmatch(string(out), -1) {
		v := Variable{Name: m[1], Default: m[2]}
		switch v.Default {
		case "(required)":
			v.Default, v.Required = "", true
		case "(none)":
			v.Default = ""
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		t.Fatalf("%s --help lists no variable:\n%s", program, out)
	}
	return all
}

// Standard are the variables that Go's runtime, the AWS SDK and OpenTelemetry's SDK read in every program, as far as
// Stampede's files set them.
var Standard = []string{
	"GOMEMLIMIT", "GOGC", "AWS_REGION", "AWS_ENDPOINT_URL_SQS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
	"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES",
}
