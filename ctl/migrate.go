package main

import (
	"context"
	"fmt"

	"stampede/internal/config"
	"stampede/internal/telemetry"
)

// migrateCmd brings the schema up to date, and gives the programs a database user who cannot change it.
type migrateCmd struct {
	AppUser string `placeholder:"USER" help:"Also create this database user, or set its password again: it may read and write, but not change the schema."`

	needsMySQL
	password           *string
	local, allowGalera *bool
}

func (c *migrateCmd) declare(vars *config.Set) {
	c.password = vars.Optional("MYSQL_APP_PASSWORD", "the password of the user that --app-user names")
	c.local, c.allowGalera = vars.MySQLSettings()
	c.needsMySQL.declare(vars)
}

func (c *migrateCmd) Run(ctx context.Context) error {
	if (c.AppUser == "") != (*c.password == "") {
		return usagef("migrate: --app-user and MYSQL_APP_PASSWORD belong together")
	}

	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()

	durability := telemetry.Durability{DB: db, Local: *c.local, AllowGalera: *c.allowGalera}
	if err := durability.Check(ctx); err != nil {
		return err
	}

	version, err := db.Migrate(ctx)
	if err != nil {
		return err
	}
	fmt.Println("schema version", version)

	if c.AppUser == "" {
		return nil
	}
	if err := db.EnsureUser(ctx, c.AppUser, *c.password); err != nil {
		return err
	}
	fmt.Printf("database user %s may read and write\n", c.AppUser)
	return nil
}
