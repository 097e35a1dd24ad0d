// Package version tells which version of Stampede a program is.
package version

import "runtime/debug"

// name is set by those who build a release: -ldflags "-X stampede/internal/version.name=v1.2.3".
var name = "devel"

// Get returns the version, and the revision that it was built from, if the build knows it.
func Get() (version, revision string) {
	revision = "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				revision = setting.Value
			}
		}
	}
	return name, revision
}
