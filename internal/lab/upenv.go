package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"stampede/internal/account"
	"stampede/internal/token"
)

const (
	// demoTokenTTL is for how long the tokens that up gives are valid.
	demoTokenTTL = 12 * time.Hour
	// demoBuyer and demoMerchant are whose tokens these are. Accounts that are registered for a try get lower ids.
	demoBuyer, demoMerchant = 900_007, 900_001
)

// assignment is one variable of the file that up leaves for shells.
type assignment struct{ name, value string }

// assignments are what a shell needs to use the fleet by hand: addresses, tokens, and the servers for ctl.
func (f *fleet) assignments() ([]assignment, error) {
	buyer, err := f.tokens.Sign(token.Claims{UserID: demoBuyer}, demoTokenTTL)
	if err != nil {
		return nil, err
	}
	merchant, err := f.tokens.Sign(token.Claims{UserID: demoMerchant, Role: string(account.Merchant)}, demoTokenTTL)
	if err != nil {
		return nil, err
	}

	all := []assignment{
		{"FRONT", f.door.URL},
		{"EDGE", f.urls()[0]},
		{"TOKEN", buyer},
		{"MERCHANT", merchant},
		{"EDGE_ADMIN", "http://" + f.running["edge"][0].Admin},
		{"SHOP_ADMIN", "http://" + f.running["shop"][0].Admin},
		{"WORKER_ADMIN", "http://" + f.running["worker"][0].Admin},
	}

	servers := []string{
		"REDIS_URL", "MYSQL_DSN", "JWT_SECRET", "AWS_REGION", "AWS_ENDPOINT_URL_SQS", "AWS_ACCESS_KEY_ID",
		"AWS_SECRET_ACCESS_KEY",
	}
	for _, variable := range f.env {
		for _, name := range servers {
			if value, ok := strings.CutPrefix(variable, name+"="); ok {
				all = append(all, assignment{name, value})
			}
		}
	}
	if f.pay == nil {
		return all, nil
	}
	all = append(all, assignment{"PAY", f.pay.URL()})
	for _, variable := range f.pay.Env() {
		name, value, _ := strings.Cut(variable, "=")
		all = append(all, assignment{name, value})
	}
	return all, nil
}

// writeEnv writes the assignments to a file that a shell can source, and that only its owner can read: there are
// passwords in it. It returns what removes the file again, unless another stack has replaced it since.
func writeEnv(path string, all []assignment) (remove func() error, err error) {
	var text bytes.Buffer
	for _, a := range all {
		fmt.Fprintf(&text, "export %s='%s'\n", a.name, strings.ReplaceAll(a.value, "'", `'\''`))
	}

	// A new file is made, since an old one might be open to others.
	file, err := os.CreateTemp(filepath.Dir(path), "up-*.env")
	if err != nil {
		return nil, err
	}

	_, err = file.Write(text.Bytes())
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(file.Name()))
	}

	return func() error {
		now, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(now, text.Bytes()) {
			return nil
		}
		return errors.Join(err, os.Remove(path))
	}, nil
}
