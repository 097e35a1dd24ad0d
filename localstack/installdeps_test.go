package localstack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstallDeps runs scripts/install-deps with a PATH on which the package managers are stand-ins, which note how
// they were called and put the programs there.
func TestInstallDeps(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	script := read(t, "../scripts/install-deps")
	const policyLine = "\npolicy=/usr/sbin/policy-rc.d\n"
	if !strings.Contains(script, policyLine) {
		t.Fatalf("the script has no line %q, which this test replaces", policyLine)
	}

	const all = "redis-server mariadbd mariadb-install-db"
	for _, test := range []struct {
		name      string
		arg       string // of the script, or none
		tools     string // package managers and sudo that exist
		present   string // programs that exist
		user      string // what "id -u" prints
		installs  string // programs that a package manager puts there
		hasPolicy bool   // the administrator has a policy-rc.d
		wantCalls []string
		wantOut   []string
		wantErr   bool
	}{
		{
			name: "nothing is missing", tools: "apt-get", present: all, user: "0",
			wantOut: []string{"are there"},
		},
		{
			name: "apt as root", tools: "apt-get dnf brew", user: "0", installs: all,
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends redis-server " +
					"mariadb-server frontend=noninteractive",
			},
			wantOut: []string{"installing redis-server mariadb-server with apt-get"},
		},
		{
			name: "apt with sudo", tools: "apt-get sudo", user: "1000", installs: all,
			wantCalls: []string{
				"sudo apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install --yes " +
					"--no-install-recommends redis-server mariadb-server",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends redis-server " +
					"mariadb-server frontend=noninteractive",
			},
		},
		{
			name: "only Redis is missing", tools: "apt-get", present: "mariadbd mariadb-install-db", user: "0",
			installs: "redis-server",
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends redis-server " +
					"frontend=noninteractive",
			},
		},
		{
			name: "apt and a policy of the administrator", tools: "apt-get", user: "0", installs: all, hasPolicy: true,
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends redis-server " +
					"mariadb-server frontend=noninteractive",
			},
		},
		{
			name: "apt fails", tools: "apt-get", user: "0", installs: "fail", wantErr: true,
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends redis-server " +
					"mariadb-server frontend=noninteractive",
			},
		},
		{
			name: "dnf", tools: "dnf", user: "0", installs: all,
			wantCalls: []string{"dnf install --assumeyes redis mariadb-server"},
		},
		{
			name: "brew", tools: "brew", user: "501", installs: all,
			wantCalls: []string{"brew install redis mariadb"},
		},
		{
			name: "brew although there is apt", tools: "apt-get brew", user: "501", installs: all,
			wantCalls: []string{"brew install redis mariadb"},
		},
		{
			name: "chromium with apt", arg: "chromium", tools: "apt-get", present: all, user: "0", installs: "chromium",
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends chromium " +
					"frontend=noninteractive",
			},
		},
		{
			name: "chromium with dnf", arg: "chromium", tools: "dnf", user: "0", installs: "chromium",
			wantCalls: []string{"dnf install --assumeyes chromium"},
		},
		{
			name: "chromium with brew", arg: "chromium", tools: "brew", user: "501", installs: "google-chrome",
			wantCalls: []string{"brew install --cask google-chrome"},
		},
		{
			name: "another browser of its kind", arg: "chromium", tools: "apt-get", present: "google-chrome", user: "0",
			wantOut: []string{"Chromium is there"},
		},
		{
			name: "no way to Chromium", arg: "chromium", user: "0", wantErr: true,
			wantOut: []string{"install it by hand"},
		},
		{
			name: "nginx with apt", arg: "nginx", tools: "apt-get", present: all, user: "0", installs: "nginx",
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends nginx-light " +
					"frontend=noninteractive",
			},
		},
		{
			name: "nginx with dnf", arg: "nginx", tools: "dnf", user: "0", installs: "nginx",
			wantCalls: []string{"dnf install --assumeyes nginx"},
		},
		{
			name: "nginx with brew", arg: "nginx", tools: "brew", user: "501", installs: "nginx",
			wantCalls: []string{"brew install nginx"},
		},
		{
			name: "no way to nginx", arg: "nginx", user: "0", wantErr: true, wantOut: []string{"install it by hand"},
		},
		{
			name: "no way to the tools for OpenAPI", arg: "openapi", tools: "apt-get", user: "0", wantErr: true,
			wantOut: []string{"Node is missing"},
		},
		{
			name: "no root", tools: "apt-get", user: "1000", wantErr: true,
			wantOut: []string{"run this as root", "docker compose up"},
		},
		{
			name: "no package manager", user: "0", wantErr: true,
			wantOut: []string{"no apt-get, dnf or brew", "docker compose up"},
		},
		{
			name: "the packages lack a program", tools: "dnf", user: "0", installs: "mariadbd mariadb-install-db",
			wantErr:   true,
			wantCalls: []string{"dnf install --assumeyes redis mariadb-server"},
			wantOut:   []string{"not on PATH", "docker compose up"},
		},
		{
			name: "the package manager fails", tools: "dnf", user: "0", installs: "fail", wantErr: true,
			wantCalls: []string{"dnf install --assumeyes redis mariadb-server"},
		},
		{
			name: "Locust and nothing else", arg: "locust", tools: "apt-get", user: "0", installs: "locust",
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends python3-locust " +
					"frontend=noninteractive",
			},
		},
		{
			name: "Locust is there", arg: "locust", tools: "apt-get", present: "locust", user: "0",
			wantOut: []string{"Locust is there"},
		},
		{
			name: "Prometheus and nothing else", arg: "prometheus", tools: "apt-get", user: "0",
			installs: "prometheus promtool",
			wantCalls: []string{
				"apt-get -o DPkg::Lock::Timeout=120 update",
				"apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends prometheus " +
					"frontend=noninteractive",
			},
		},
		{
			name: "Prometheus with dnf", arg: "prometheus", tools: "dnf", user: "0", installs: "prometheus promtool",
			wantCalls: []string{"dnf install --assumeyes golang-github-prometheus"},
		},
		{
			name: "Prometheus without promtool", arg: "prometheus", tools: "brew", present: "prometheus", user: "501",
			wantCalls: []string{"brew install prometheus"},
		},
		{
			name: "Prometheus is there", arg: "prometheus", tools: "apt-get", present: "prometheus promtool", user: "0",
			wantOut: []string{"Prometheus is there"},
		},
		{
			name: "something unknown", arg: "haproxy", tools: "apt-get", user: "0", wantErr: true,
			wantOut: []string{"give k6, locust, prometheus, chromium, nginx, openapi or nothing"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, bin := t.TempDir(), t.TempDir()
			calls, policy := filepath.Join(dir, "calls"), filepath.Join(dir, "policy-rc.d")
			if test.hasPolicy {
				stub(t, dir, "policy-rc.d", "exit 0")
			}
			note := `name=${0##*/}; echo "$name $*${DEBIAN_FRONTEND:+ frontend=$DEBIAN_FRONTEND}" >>"$CALLS"` + "\n"
			for _, name := range strings.Fields(test.tools) {
				if name == "sudo" {
					stub(t, bin, name, note+`exec "$@"`)
					continue
				}
				stub(t, bin, name, note+`
					case " $* " in *" install "*) ;; *) exit 0 ;; esac
					if [ "$name" = apt-get ]; then "$POLICY"; echo $? >>"$POLICY.answer"; fi
					for p in $INSTALLS; do
						if [ "$p" = fail ]; then exit 100; fi
						printf '#!/bin/sh\n' >"$PATH/$p"; chmod 755 "$PATH/$p"
					done`)
			}
			for _, name := range strings.Fields(test.present) {
				stub(t, bin, name, "")
			}
			stub(t, bin, "id", "echo "+test.user)
			for _, name := range []string{"env", "tee", "chmod", "rm"} {
				path, err := exec.LookPath(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
					t.Fatal(err)
				}
			}
			copied := filepath.Join(dir, "install-deps")
			changed := strings.Replace(script, policyLine, "\npolicy='"+policy+"'\n", 1)
			// What is installed on this machine is not found without PATH either.
			changed = strings.NewReplacer("/usr/sbin/$1", dir+"/none", "/usr/local/sbin/$1", dir+
				"/none").Replace(changed)
			if err := os.WriteFile(copied, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}

			cmd := exec.Command(bash, append([]string{copied}, strings.Fields(test.arg)...)...)
			cmd.Env = []string{"PATH=" + bin, "CALLS=" + calls, "INSTALLS=" + test.installs, "POLICY=" + policy}
			out, err := cmd.CombinedOutput()
			if (err != nil) != test.wantErr {
				t.Errorf("it ended with %v:\n%s", err, out)
			}
			for _, want := range test.wantOut {
				if !strings.Contains(string(out), want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}

			var got []string
			if recorded, err := os.ReadFile(calls); err == nil {
				for line := range strings.Lines(string(recorded)) {
					if !strings.Contains(line, policy) { // "sudo tee" and the like; what they do is looked at below
						got = append(got, strings.TrimSpace(line))
					}
				}
			}
			if strings.Join(got, "\n") != strings.Join(test.wantCalls, "\n") {
				t.Errorf("called\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.wantCalls, "\n"))
			}

			// While apt installs, services are forbidden, unless the administrator has decided. Then all is as before.
			if answer, err := os.ReadFile(policy + ".answer"); err == nil {
				want := "101"
				if test.hasPolicy {
					want = "0"
				}
				if got := strings.TrimSpace(string(answer)); got != want {
					t.Errorf("policy-rc.d ended with %s while apt installed, want %s", got, want)
				}
			}
			if _, err := os.Stat(policy); (err == nil) != test.hasPolicy {
				t.Errorf("policy-rc.d afterwards: %v", err)
			}
		})
	}
}
