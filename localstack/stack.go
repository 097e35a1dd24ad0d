package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"

	"stampede/internal/queue"
	"stampede/localstack/sqs"
)

// Region and credentials of the local SQS. It checks neither, but the AWS SDK does not send a request without them.
const (
	Region          = "us-east-1"
	AccessKeyID     = "local"
	SecretAccessKey = "local"
)

// The names that the programs expect unless they are told others, and the database of the stack.
const (
	QueueName    = "orders"
	DLQName      = "orders-dlq"
	DatabaseName = "stampede"
)

// Options say how to run a stack.
type Options struct {
	Dir          string // holds data and logs; made if missing. One stack at a time can use it.
	RedisPersist bool   // keep Redis's data when Redis is killed and when the stack is started again
	RedisArgs    []string
	RedisMasters int // of a Redis Cluster; 0 is one server that is none
	MariaDBArgs  []string
	SQSFaults    sqs.Faults // from when the queues are there
}

// Stack is Redis, or a Redis Cluster, MariaDB and SQS, with the queues and the (empty) database that the programs
// expect.
type Stack struct {
	Redis   *Redis        // nil if there is a Cluster
	Cluster *RedisCluster // or nil
	MariaDB *MariaDB
	SQS     *sqs.Server

	lock  *os.File
	close func() error
}

// Start starts the three side by side. MariaDB's data is there again at the next Start in the same Dir, that of the
// queues is not.
func Start(ctx context.Context, o Options) (*Stack, error) {
	dir, err := makeDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("starting the local stack: %w", err)
	}
	s := &Stack{}
	s.close = sync.OnceValue(s.closeAll)
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}

	var redisErr, mariadbErr, sqsErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		options := RedisOptions{Dir: filepath.Join(dir, "redis"), Persist: o.RedisPersist, Args: o.RedisArgs}
		if o.RedisMasters > 0 {
			s.Cluster, redisErr = StartRedisCluster(ctx, o.RedisMasters, options)
		} else {
			s.Redis, redisErr = StartRedis(ctx, options)
		}
	})
	wg.Go(func() {
		s.MariaDB, mariadbErr = StartMariaDB(ctx, MariaDBOptions{Dir: filepath.Join(dir, "mariadb"),
			Args: o.MariaDBArgs})
		if mariadbErr == nil {
			mariadbErr = s.MariaDB.CreateDatabase(ctx, DatabaseName)
		}
	})
	wg.Go(func() {
		s.SQS, sqsErr = sqs.Start(sqs.Options{Region: Region})
		if sqsErr == nil {
			sqsErr = queue.Create(ctx, SQSClient(s.SQS.URL()), QueueName, DLQName)
			s.SQS.SetFaults(o.SQSFaults)
		}
	})
	wg.Wait()
	if err := errors.Join(redisErr, mariadbErr, sqsErr); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// lockDir takes the directory for this process. The kernel drops the lock with the process, so none is ever left over.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting the local stack: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		holder, _ := os.ReadFile(path)
		return nil, fmt.Errorf("another local stack (process %s) is running in %s: stop it, or use another directory",
			strings.TrimSpace(string(holder)), dir)
	}
	// The process id is only for the message above.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}

// SQSClient returns a client for an SQS-compatible server on this machine.
func SQSClient(endpoint string) *awssqs.Client {
	return awssqs.New(awssqs.Options{
		BaseEndpoint: aws.String(endpoint),
		Region:       Region,
		Credentials:  credentials.NewStaticCredentialsProvider(AccessKeyID, SecretAccessKey, ""),
		APIOptions:   []func(*middleware.Stack) error{queue.KeepConnections},
	})
}

// SQSEnv returns the variables that lead the AWS SDK to an SQS-compatible server on this machine.
func SQSEnv(endpoint string) []string {
	return []string{
		"AWS_REGION=" + Region,
		"AWS_ENDPOINT_URL_SQS=" + endpoint,
		"AWS_ACCESS_KEY_ID=" + AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + SecretAccessKey,
	}
}

// Env returns the variables ("NAME=value") that lead the edge, the worker and ctl to this stack. JWT_SECRET is not
// among them.
func (s *Stack) Env() []string {
	redisURL := ""
	if s.Cluster != nil {
		redisURL = s.Cluster.URL()
	} else {
		redisURL = s.Redis.URL()
	}
	return append([]string{
		"REDIS_URL=" + redisURL,
		"MYSQL_DSN=" + s.MariaDB.DSN(DatabaseName),
		"MYSQL_LOCAL=true", // see innodb-flush-log-at-trx-commit in mariadb.go
		"ORDERS_QUEUE=" + QueueName,
		"ORDERS_DLQ=" + DLQName,
	}, SQSEnv(s.SQS.URL())...)
}

// Close ends the servers and frees the directory; the data stays. Closing again does nothing and returns the same.
func (s *Stack) Close() error { return s.close() }

func (s *Stack) closeAll() error {
	// The queue first, so that nothing new arrives; MySQL, which holds the truth, last.
	var errs []error
	if s.SQS != nil {
		errs = append(errs, s.SQS.Close())
	}
	if s.Redis != nil {
		errs = append(errs, s.Redis.Close())
	}
	if s.Cluster != nil {
		errs = append(errs, s.Cluster.Close())
	}
	if s.MariaDB != nil {
		errs = append(errs, s.MariaDB.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
