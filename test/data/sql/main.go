// Command sql stands in for Jellyfin's use of its SQLite database, in test/data:
//
//	sql FILE STATEMENTS     runs them and prints the rows, a line each
//	sql FILE                writes, until stdin ends: each transaction puts the next
//	                        number into two tables, so that one moment of the file
//	                        has as many rows in one as in the other
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"

	_ "modernc.org/sqlite"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sql:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: sql FILE [STATEMENTS]")
	}
	db, err := sql.Open("sqlite", "file:"+args[0]+"?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if len(args) > 1 {
		return query(ctx, db, args[1], stdout)
	}
	return write(ctx, db, stdin)
}

func query(ctx context.Context, db *sql.DB, statements string, stdout io.Writer) error {
	rows, err := db.QueryContext(ctx, statements)
	if err != nil {
		return fmt.Errorf("%s: %w", statements, err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		fmt.Fprintln(stdout, text)
	}
	return rows.Err()
}

func write(ctx context.Context, db *sql.DB, stdin io.Reader) error {
	ctx, stop := context.WithCancel(ctx)
	go func() { // ends with stdin, and the process with it
		_, _ = io.Copy(io.Discard, stdin)
		stop()
	}()
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS Began (N); CREATE TABLE IF NOT EXISTS Ended (N)"); err != nil {
		return err
	}
	for n := 0; ctx.Err() == nil; n++ {
		if err := pair(ctx, db, n); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func pair(ctx context.Context, db *sql.DB, n int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, insert := range []string{"INSERT INTO Began VALUES (?)", "INSERT INTO Ended VALUES (?)"} {
		if _, err := tx.ExecContext(ctx, insert, n); err != nil {
			return err
		}
	}
	return tx.Commit()
}
