//! Proves, from outside: each module is a promise, each test a session with the program.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod batches;
mod canary;
mod chat_server;
mod checks;
mod command;
mod damage;
mod dialects;
mod diff;
mod docs;
mod doctor;
mod drift;
mod edits;
mod examples;
mod few_shot;
mod forget;
mod gc;
mod guides;
mod include;
mod incremental;
mod ingestion;
mod init;
mod label_pipelines;
mod labels;
mod live;
mod llm;
mod matrix;
mod pseudonyms;
mod quickstart;
mod real_reports;
mod real_volumes;
mod revisions;
mod sandbox;
mod scheduling;
mod schema;
mod select;
mod shell;
mod stores;
mod streaming;
mod sweep;
mod tidy;
mod torture;
mod trial;
mod verify;
mod wrong;
