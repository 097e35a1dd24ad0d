package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"stampede/internal/plaintext"
	"stampede/internal/stock"
	"stampede/internal/store"
)

// runUserLogout ends all sessions of a user.
func runUserLogout(ctx context.Context, args []string) error {
	return changeUser(ctx, "user logout", args, func(db *store.Store, user store.User) (string, []uuid.UUID, error) {
		ended, err := db.EndSessions(ctx, user.ID)
		return "is logged out", ended, err
	})
}

// runUserDisable keeps everybody from logging in to an account, and ends its sessions.
func runUserDisable(ctx context.Context, args []string) error {
	return changeUser(ctx, "user disable", args, func(db *store.Store, user store.User) (string, []uuid.UUID, error) {
		ended, err := db.Disable(ctx, user.ID)
		return "is disabled", ended, err
	})
}

// runUserEnable undoes runUserDisable.
func runUserEnable(ctx context.Context, args []string) error {
	return changeUser(ctx, "user enable", args, func(db *store.Store, user store.User) (string, []uuid.UUID, error) {
		return "is enabled", nil, db.Enable(ctx, user.ID)
	})
}

// changeUser changes an account in MySQL and tells every edge which of its sessions have ended.
func changeUser(ctx context.Context, name string, args []string, change func(*store.Store, store.User) (string, []uuid.UUID, error)) error {
	in := newInput(name)
	email := in.String("email", "", "e-mail address of the user")
	dsn, redisURL := in.vars.MySQLDSN(), in.vars.RedisURL()
	if err := in.parse(args); err != nil {
		return err
	}
	data, err := openWithoutQueue(*dsn, *redisURL)
	if err != nil {
		return err
	}
	defer data.close()
	db, st := data.store, data.stock

	user, err := userByEmail(ctx, db, *email)
	if err != nil {
		return err
	}
	is, ended, err := change(db, user)
	if err != nil {
		return err
	}
	fmt.Printf("user %d (%s) %s; %d sessions ended\n", user.ID, plaintext.Escape(user.Email), is, len(ended))
	if len(ended) == 0 {
		return nil
	}
	if err := st.Publish(ctx, stock.Notice{EndedSessions: ended}); err != nil {
		fmt.Println("The edges could not be told, and find out within some seconds.")
	}
	return nil
}

func userByEmail(ctx context.Context, db *store.Store, email string) (store.User, error) {
	user, err := db.UserByEmail(ctx, email)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, fmt.Errorf("there is no user %q", email)
	}
	return user, err
}
