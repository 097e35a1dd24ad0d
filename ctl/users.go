package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"stampede/internal/account"
	"stampede/internal/mysql"
	"stampede/internal/notice"
	"stampede/internal/plaintext"
)

// byEmail names the user that a command is about.
type byEmail struct {
	Email string `required:"" placeholder:"ADDRESS" help:"E-mail address of the user."`
}

// userLogoutCmd ends all sessions of a user.
type userLogoutCmd struct {
	byEmail
	needsStores
}

func (c *userLogoutCmd) Run(ctx context.Context) error {
	change := func(a *account.Accounts, user account.User) (string, []uuid.UUID, error) {
		ended, err := a.EndSessions(ctx, user.ID)
		return "is logged out", ended, err
	}
	return changeUser(ctx, c.needsStores, c.Email, change)
}

// userDisableCmd keeps everybody from logging in to an account, and ends its sessions.
type userDisableCmd struct {
	byEmail
	needsStores
}

func (c *userDisableCmd) Run(ctx context.Context) error {
	change := func(a *account.Accounts, user account.User) (string, []uuid.UUID, error) {
		ended, err := a.Disable(ctx, user.ID)
		return "is disabled", ended, err
	}
	return changeUser(ctx, c.needsStores, c.Email, change)
}

// userEnableCmd undoes userDisableCmd.
type userEnableCmd struct {
	byEmail
	needsStores
}

func (c *userEnableCmd) Run(ctx context.Context) error {
	change := func(a *account.Accounts, user account.User) (string, []uuid.UUID, error) {
		return "is enabled", nil, a.Enable(ctx, user.ID)
	}
	return changeUser(ctx, c.needsStores, c.Email, change)
}

// changeUser changes an account in MySQL and tells every edge which of its sessions have ended.
func changeUser(
	ctx context.Context, servers needsStores, email string,
	change func(*account.Accounts, account.User) (is string, ended []uuid.UUID, err error),
) error {
	data, err := servers.open()
	if err != nil {
		return err
	}
	defer data.close()

	user, err := userByEmail(ctx, data.accounts, email)
	if err != nil {
		return err
	}
	is, ended, err := change(data.accounts, user)
	if err != nil {
		return err
	}
	fmt.Printf("user %d (%s) %s; %d sessions ended\n", user.ID, plaintext.Escape(user.Email), is, len(ended))
	if len(ended) == 0 {
		return nil
	}
	if err := notice.Publish(ctx, data.redis, notice.Notice{EndedSessions: ended}); err != nil {
		fmt.Println("The edges could not be told, and find out within some seconds.")
	}
	return nil
}

// userRoleCmd also ends the user's sessions, whose tokens carry the old role.
type userRoleCmd struct {
	byEmail
	Role account.Role `required:"" enum:"buyer,merchant,admin" placeholder:"ROLE" help:"What the user may do: buyer, merchant or admin."`
	needsMySQL
}

func (c *userRoleCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	accounts := account.New(db)
	user, err := userByEmail(ctx, accounts, c.Email)
	if err != nil {
		return err
	}
	if err := accounts.SetRole(ctx, user.ID, c.Role); err != nil {
		return err
	}
	ended, err := accounts.EndSessions(ctx, user.ID)
	if err != nil {
		return fmt.Errorf("the role is set; repeat the command to end the user's sessions too: %w", err)
	}
	fmt.Printf("user %d (%s) is now %s; %d sessions ended\n", user.ID, plaintext.Escape(user.Email), c.Role, len(ended))
	return nil
}

func userByEmail(ctx context.Context, accounts *account.Accounts, email string) (account.User, error) {
	user, err := accounts.UserByEmail(ctx, email)
	if errors.Is(err, mysql.ErrNotFound) {
		return account.User{}, fmt.Errorf("there is no user %q", email)
	}
	return user, err
}
