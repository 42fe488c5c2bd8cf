// The plugin ABI for Rust. Made by `make reference` from client_manager_plugin.h, which explains all of it;
// the helpers at the end are Plugins/SDK/helpers.rs. Include it as a module: see the template's lib.rs.
#![allow(non_camel_case_types, dead_code, clippy::all)]

use std::os::raw::{c_char, c_void};

pub const CM_ABI_MAJOR: u32 = 1;

// the identity note

pub const CM_PLUGIN_NOTE_SECTION: &str = "cm_plugin";

// scalars

pub const CM_OK: i32 = 0;
pub const CM_E_INVALID: i32 = -1;
pub const CM_E_DENIED: i32 = -2;
pub const CM_E_NOT_FOUND: i32 = -3;
pub const CM_E_EXISTS: i32 = -4;
pub const CM_E_BUSY: i32 = -5;
pub const CM_E_TOO_SMALL: i32 = -6;
pub const CM_E_TOO_LARGE: i32 = -7;
pub const CM_E_GONE: i32 = -8;
pub const CM_E_STATE: i32 = -9;
pub const CM_E_THREAD: i32 = -10;
pub const CM_E_UNSUPPORTED: i32 = -11;
pub const CM_E_TIMEOUT: i32 = -12;
pub const CM_E_UNAVAILABLE: i32 = -13;
pub const CM_E_INTERNAL: i32 = -14;
pub const CM_NO_HANDLE: u64 = 0;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_text {
    pub data: *const c_char,
    pub size: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_bytes {
    pub data: *const u8,
    pub size: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_buffer {
    pub data: *mut u8,
    pub capacity: u64,
    pub size: u64,
}

#[repr(C)]
pub struct cm_error {
    pub status: i32,
    pub http_status: u32,
    pub code_size: u32,
    pub text_size: u32,
    pub code: [u8; 64],
    pub text: [u8; 432],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_head {
    pub size: u32,
    pub revision: u32,
}

// capabilities

pub const CM_CAPABILITY_HTTP: &str = "http";
pub const CM_CAPABILITY_EVENTS: &str = "events";
pub const CM_CAPABILITY_JOBS: &str = "jobs";
pub const CM_CAPABILITY_STORE: &str = "store";
pub const CM_CAPABILITY_CLIENTS: &str = "clients.read";
pub const CM_CAPABILITY_AUDIT: &str = "audit.write";
pub const CM_CAPABILITY_INLINE: &str = "inline";
pub const CM_CAPABILITY_LABELS: &str = "clients.write";
pub const CM_CAPABILITY_COMMANDS: &str = "commands";
pub const CM_CAPABILITY_CHANNELS: &str = "channels";
pub const CM_CAPABILITY_SECRETS: &str = "secrets";
pub const CM_CAPABILITY_AUDIT_READ: &str = "audit.read";
pub const CM_CAPABILITY_FILES: &str = "files";
pub const CM_CAPABILITY_ENROLLMENT: &str = "enrollment";
pub const CM_CAPABILITY_PRIVATE: &str = "private-files";
pub const CM_CAPABILITY_FILTER: &str = "output.filter";

// the host

#[repr(C)]
pub struct cm_host_context {
    _private: [u8; 0],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_host {
    pub head: cm_head,
    pub context: *mut cm_host_context,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub interface_get: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, u32, *mut *const c_void, *mut cm_error) -> i32>,
}

// the plugin


#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_plugin {
    pub head: cm_head,
    pub context: *mut c_void,
    pub id: *const c_char,
    pub version: *const c_char,
    pub load: Option<unsafe extern "C" fn(*mut c_void, *const cm_host, *mut cm_error) -> i32>,
    pub start: Option<unsafe extern "C" fn(*mut c_void, *mut cm_error) -> i32>,
    pub quiesce: Option<unsafe extern "C" fn(*mut c_void, *mut cm_error) -> i32>,
    pub resume: Option<unsafe extern "C" fn(*mut c_void, *mut cm_error) -> i32>,
    pub stop: Option<unsafe extern "C" fn(*mut c_void)>,
}

// cm.log/1

pub const CM_INTERFACE_LOG: &str = "cm.log/1";
pub const CM_LOG_DEBUG: u32 = 0;
pub const CM_LOG_INFO: u32 = 1;
pub const CM_LOG_WARNING: u32 = 2;
pub const CM_LOG_ERROR: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_log {
    pub head: cm_head,
    pub write: Option<unsafe extern "C" fn(*mut cm_host_context, u32, cm_text, cm_text) -> i32>,
    pub is_enabled: Option<unsafe extern "C" fn(*mut cm_host_context, u32) -> i32>,
}

// cm.config/1

pub const CM_INTERFACE_CONFIG: &str = "cm.config/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_config {
    pub head: cm_head,
    pub read: Option<unsafe extern "C" fn(*mut cm_host_context, *mut cm_buffer) -> i32>,
    pub get: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *mut cm_buffer) -> i32>,
}

// cm.services/1: plugins share tables with each other

pub const CM_INTERFACE_SERVICES: &str = "cm.services/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_lease {
    pub head: cm_head,
    pub handle: u64,
    pub table: *const c_void,
    pub context: *mut c_void,
    pub valid: *const u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_lease_callbacks {
    pub head: cm_head,
    pub recalled: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_service_callbacks {
    pub head: cm_head,
    pub changed: Option<unsafe extern "C" fn(*mut c_void, cm_text, u32)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_services {
    pub head: cm_head,
    pub publish: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *const cm_head, *mut c_void, *mut cm_error) -> i32>,
    pub withdraw: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text) -> i32>,
    pub acquire: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, u32, *const cm_lease_callbacks, *mut c_void, *mut cm_lease, *mut cm_error) -> i32>,
    pub release: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub watch: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *const cm_service_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub unwatch: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
}

// cm.http/1: routes in the one API

pub const CM_INTERFACE_HTTP: &str = "cm.http/1";
pub const CM_REQUEST_METHOD: u32 = 0;
pub const CM_REQUEST_PATH: u32 = 1;
pub const CM_REQUEST_PARAMETER: u32 = 2;
pub const CM_REQUEST_QUERY: u32 = 3;
pub const CM_REQUEST_HEADER: u32 = 4;
pub const CM_REQUEST_ACTOR: u32 = 5;
pub const CM_REQUEST_ADDRESS: u32 = 6;
pub const CM_REQUEST_CORRELATION: u32 = 7;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_route_callbacks {
    pub head: cm_head,
    pub request: Option<unsafe extern "C" fn(*mut c_void, u64, cm_bytes)>,
    pub body: Option<unsafe extern "C" fn(*mut c_void, u64, cm_bytes, u32)>,
    pub writable: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    pub gone: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}
pub const CM_MESSAGE_BINARY: u32 = 0;
pub const CM_MESSAGE_TEXT: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_websocket_callbacks {
    pub head: cm_head,
    pub message: Option<unsafe extern "C" fn(*mut c_void, u64, u32, cm_bytes)>,
    pub writable: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    pub closed: Option<unsafe extern "C" fn(*mut c_void, u64, u32, cm_text)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_http {
    pub head: cm_head,
    pub route_add: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *const cm_route_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub route_remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub asset_add: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, cm_text, cm_bytes, *mut cm_error) -> i32>,
    pub request_get: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_text, *mut cm_buffer) -> i32>,
    pub request_may: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text) -> i32>,
    pub request_more: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u64) -> i32>,
    pub respond: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_text, cm_bytes) -> i32>,
    pub respond_problem: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_text, cm_text) -> i32>,
    pub respond_begin: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_text, i64) -> i32>,
    pub respond_write: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_bytes) -> i32>,
    pub respond_end: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub respond_abort: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub websocket_accept: Option<unsafe extern "C" fn(*mut cm_host_context, u64, *const cm_websocket_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub websocket_send: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_bytes) -> i32>,
    pub websocket_receive: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32) -> i32>,
    pub websocket_close: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_text) -> i32>,
    pub ticket_issue: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_buffer, *mut cm_error) -> i32>,
}

// actors


// cm.clients/1 (clients.read; labels: clients.write)

pub const CM_INTERFACE_CLIENTS: &str = "cm.clients/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_clients {
    pub head: cm_head,
    pub get: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_buffer, *mut cm_error) -> i32>,
    pub select: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, u32, *mut cm_buffer, *mut cm_error) -> i32>,
    pub is_online: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text) -> i32>,
    pub set_labels: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, *mut cm_error) -> i32>,
    pub select_asserted: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, u32, *mut cm_buffer, *mut cm_error) -> i32>,
}

// cm.commands/1 (commands; filter_…: output.filter)

pub const CM_INTERFACE_COMMANDS: &str = "cm.commands/1";
pub const CM_OUTPUT_LAST: u32 = 1;
pub const CM_OUTPUT_HELD: u32 = 4096;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_command_callbacks {
    pub head: cm_head,
    pub target_ended: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text)>,
    pub ended: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_output_piece {
    pub head: cm_head,
    pub command: cm_text,
    pub client: cm_text,
    pub stream: u32,
    pub flags: u32,
    pub offset: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_output_filter_callbacks {
    pub head: cm_head,
    pub filter: Option<unsafe extern "C" fn(*mut c_void, *const cm_output_piece, *mut u8, u64) -> i64>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_commands {
    pub head: cm_head,
    pub run: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *const cm_command_callbacks, *mut c_void, *mut u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub watch: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *const cm_command_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub unwatch: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub cancel: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_error) -> i32>,
    pub output: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, u32, u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub run_with_secrets: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_bytes, *const cm_command_callbacks, *mut c_void, *mut u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub filter_add: Option<unsafe extern "C" fn(*mut cm_host_context, *const cm_output_filter_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub filter_remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
}

// cm.channels/1 (channels): a stream to an agent

pub const CM_INTERFACE_CHANNELS: &str = "cm.channels/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_channel_callbacks {
    pub head: cm_head,
    pub opened: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text)>,
    pub data: Option<unsafe extern "C" fn(*mut c_void, u64, u64, cm_bytes)>,
    pub writable: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    pub linked: Option<unsafe extern "C" fn(*mut c_void, u64, u32)>,
    pub ended: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_channels {
    pub head: cm_head,
    pub open: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *const cm_channel_callbacks, *mut c_void, *mut u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub attach: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, u64, u32, *const cm_channel_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub list: Option<unsafe extern "C" fn(*mut cm_host_context, *mut cm_buffer, *mut cm_error) -> i32>,
    pub write: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_bytes) -> i32>,
    pub grant: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u64) -> i32>,
    pub resize: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, u32) -> i32>,
    pub close: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub detach: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
}

// cm.private_files/1 (private-files): secret content in a client's memory

pub const CM_INTERFACE_PRIVATE_FILES: &str = "cm.private_files/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_private_file_callbacks {
    pub head: cm_head,
    pub done: Option<unsafe extern "C" fn(*mut c_void, i32, cm_text)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_private_files {
    pub head: cm_head,
    pub put: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, cm_bytes, *const cm_private_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
    pub remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, *const cm_private_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
    pub list: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *const cm_private_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
}

// cm.jobs/1 (jobs)

pub const CM_INTERFACE_JOBS: &str = "cm.jobs/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_job_callbacks {
    pub head: cm_head,
    pub run: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text, cm_bytes)>,
    pub cancel: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}
pub const CM_JOB_SUCCEEDED: u32 = 0;
pub const CM_JOB_FAILED: u32 = 1;
pub const CM_JOB_DEAD: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_jobs {
    pub head: cm_head,
    pub kind_add: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *const cm_job_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub kind_remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub submit: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_buffer, *mut cm_error) -> i32>,
    pub cancel: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_error) -> i32>,
    pub get: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_buffer, *mut cm_error) -> i32>,
    pub checkpoint: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_bytes, u64, *mut cm_error) -> i32>,
    pub progress: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_text) -> i32>,
    pub log: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text) -> i32>,
    pub finish: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u32, cm_text, cm_text, cm_text) -> i32>,
}

// cm.events/1 (events)

pub const CM_INTERFACE_EVENTS: &str = "cm.events/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_event_callbacks {
    pub head: cm_head,
    pub event: Option<unsafe extern "C" fn(*mut c_void, cm_text, cm_text)>,
    pub missed: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_events {
    pub head: cm_head,
    pub publish: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, cm_text, cm_text, cm_text) -> i32>,
    pub subscribe: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *const cm_event_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub unsubscribe: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
}

// cm.store/1 (store): the plugin's own durable memory

pub const CM_INTERFACE_STORE: &str = "cm.store/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_store {
    pub head: cm_head,
    pub get: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *mut cm_buffer, *mut cm_error) -> i32>,
    pub list: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, cm_text, u32, *mut cm_buffer, *mut cm_error) -> i32>,
    pub begin: Option<unsafe extern "C" fn(*mut cm_host_context, *mut u64) -> i32>,
    pub put: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_bytes) -> i32>,
    pub remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text) -> i32>,
    pub expect: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, u32, cm_bytes) -> i32>,
    pub commit: Option<unsafe extern "C" fn(*mut cm_host_context, u64, *mut cm_error) -> i32>,
    pub discard: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub blob_append: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, cm_bytes, *mut u64, *mut cm_error) -> i32>,
    pub blob_sync: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *mut cm_error) -> i32>,
    pub blob_read: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub blob_size: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *mut u64) -> i32>,
    pub blob_remove: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, *mut cm_error) -> i32>,
}

// cm.files/1 (files): the managed store, transfers between it and clients, and what clients have

pub const CM_INTERFACE_FILES: &str = "cm.files/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_transfer_callbacks {
    pub head: cm_head,
    pub progress: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text)>,
    pub ended: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_client_file_callbacks {
    pub head: cm_head,
    pub done: Option<unsafe extern "C" fn(*mut c_void, i32, cm_text)>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_files {
    pub head: cm_head,
    pub create: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub resume: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut u64, *mut u64, *mut cm_error) -> i32>,
    pub append: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_bytes, *mut cm_error) -> i32>,
    pub sync: Option<unsafe extern "C" fn(*mut cm_host_context, u64, *mut u64, *mut cm_error) -> i32>,
    pub seal: Option<unsafe extern "C" fn(*mut cm_host_context, u64, *const u8, *mut cm_buffer, *mut cm_error) -> i32>,
    pub release: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub discard: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub get: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_buffer, *mut cm_error) -> i32>,
    pub list: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, u32, *mut cm_buffer, *mut cm_error) -> i32>,
    pub open: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut u64, *mut u64, *mut cm_error) -> i32>,
    pub read: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub close: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_error) -> i32>,
    pub transfer_start: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *const cm_transfer_callbacks, *mut c_void, *mut u64, *mut cm_buffer, *mut cm_error) -> i32>,
    pub transfer_watch: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *const cm_transfer_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub transfer_unwatch: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub transfer_cancel: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_error) -> i32>,
    pub client_list: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, cm_text, u32, *const cm_client_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
    pub client_status: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, u32, *const cm_client_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
    pub client_hash: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, cm_text, *const cm_client_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
    pub client_make_directory: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, u32, u32, *const cm_client_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
    pub client_rename: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, cm_text, u32, *const cm_client_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
    pub client_remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, u32, *const cm_client_file_callbacks, *mut c_void, *mut cm_error) -> i32>,
}

// cm.enrollment/1 (enrollment): what it takes to bring an agent to a machine

pub const CM_INTERFACE_ENROLLMENT: &str = "cm.enrollment/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_enrollment {
    pub head: cm_head,
    pub core: Option<unsafe extern "C" fn(*mut cm_host_context, *mut cm_buffer, *mut cm_error) -> i32>,
    pub token_create: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_buffer, *mut cm_error) -> i32>,
    pub token_revoke: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, *mut cm_error) -> i32>,
    pub agent: Option<unsafe extern "C" fn(*mut cm_host_context, *mut cm_buffer, *mut cm_error) -> i32>,
    pub agent_read: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, u64, *mut cm_buffer, *mut cm_error) -> i32>,
}

// cm.crypto/1 (sealing: secrets)

pub const CM_INTERFACE_CRYPTO: &str = "cm.crypto/1";

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_crypto {
    pub head: cm_head,
    pub random: Option<unsafe extern "C" fn(*mut cm_host_context, *mut u8, u64) -> i32>,
    pub sha256: Option<unsafe extern "C" fn(*mut cm_host_context, cm_bytes, *mut u8) -> i32>,
    pub hmac_sha256: Option<unsafe extern "C" fn(*mut cm_host_context, cm_bytes, cm_bytes, *mut u8) -> i32>,
    pub seal: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, cm_bytes, *mut cm_buffer, *mut cm_error) -> i32>,
    pub unseal: Option<unsafe extern "C" fn(*mut cm_host_context, cm_text, cm_bytes, *mut cm_buffer, *mut cm_error) -> i32>,
    pub encrypt: Option<unsafe extern "C" fn(*mut cm_host_context, cm_bytes, cm_bytes, cm_bytes, *mut cm_buffer, *mut cm_error) -> i32>,
    pub decrypt: Option<unsafe extern "C" fn(*mut cm_host_context, cm_bytes, cm_bytes, cm_bytes, *mut cm_buffer, *mut cm_error) -> i32>,
}

// cm.audit/1 (audit.write; sink: audit.read)

pub const CM_INTERFACE_AUDIT: &str = "cm.audit/1";
pub const CM_AUDIT_ALLOWED: u32 = 0;
pub const CM_AUDIT_REFUSED: u32 = 1;
pub const CM_AUDIT_FAILED: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_audit_callbacks {
    pub head: cm_head,
    pub record: Option<unsafe extern "C" fn(*mut c_void, u64, cm_text) -> i32>,
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_audit {
    pub head: cm_head,
    pub write: Option<unsafe extern "C" fn(*mut cm_host_context, u64, cm_text, cm_text, cm_text, u32, cm_text, cm_text, *mut cm_error) -> i32>,
    pub sink: Option<unsafe extern "C" fn(*mut cm_host_context, *const cm_audit_callbacks, *mut c_void, *mut u64, *mut cm_error) -> i32>,
    pub sink_remove: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
}

// cm.metrics/1

pub const CM_INTERFACE_METRICS: &str = "cm.metrics/1";
pub const CM_METRIC_COUNTER: u32 = 0;
pub const CM_METRIC_GAUGE: u32 = 1;
pub const CM_METRIC_HISTOGRAM: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_metrics {
    pub head: cm_head,
    pub define: Option<unsafe extern "C" fn(*mut cm_host_context, u32, cm_text, cm_text, *mut u64, *mut cm_error) -> i32>,
    pub add: Option<unsafe extern "C" fn(*mut cm_host_context, u64, f64) -> i32>,
    pub set: Option<unsafe extern "C" fn(*mut cm_host_context, u64, f64) -> i32>,
}

// cm.executor/1: threads and time

pub const CM_INTERFACE_EXECUTOR: &str = "cm.executor/1";
pub type cm_function = unsafe extern "C" fn(*mut c_void);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cm_executor {
    pub head: cm_head,
    pub post: Option<unsafe extern "C" fn(*mut cm_host_context, Option<cm_function>, Option<cm_function>, *mut c_void) -> i32>,
    pub blocking: Option<unsafe extern "C" fn(*mut cm_host_context, Option<cm_function>, Option<cm_function>, *mut c_void) -> i32>,
    pub timer: Option<unsafe extern "C" fn(*mut cm_host_context, u64, u64, Option<cm_function>, Option<cm_function>, *mut c_void, *mut u64) -> i32>,
    pub timer_cancel: Option<unsafe extern "C" fn(*mut cm_host_context, u64) -> i32>,
    pub now_ms: Option<unsafe extern "C" fn(*mut cm_host_context) -> u64>,
    pub is_own_thread: Option<unsafe extern "C" fn(*mut cm_host_context) -> i32>,
}

// layouts

const _: () = assert!(std::mem::size_of::<cm_text>() == 16);
const _: () = assert!(std::mem::size_of::<cm_bytes>() == 16);
const _: () = assert!(std::mem::size_of::<cm_buffer>() == 24);
const _: () = assert!(std::mem::size_of::<cm_error>() == 512);
const _: () = assert!(std::mem::size_of::<cm_head>() == 8);
const _: () = assert!(std::mem::size_of::<cm_lease>() == 40);
const _: () = assert!(std::mem::size_of::<cm_host>() == 32);
const _: () = assert!(std::mem::size_of::<cm_plugin>() == 72);
const _: () = assert!(std::mem::size_of::<cm_log>() == 24);
const _: () = assert!(std::mem::size_of::<cm_config>() == 24);
const _: () = assert!(std::mem::size_of::<cm_services>() == 56);
const _: () = assert!(std::mem::size_of::<cm_lease_callbacks>() == 24);
const _: () = assert!(std::mem::size_of::<cm_service_callbacks>() == 24);
const _: () = assert!(std::mem::size_of::<cm_route_callbacks>() == 48);
const _: () = assert!(std::mem::size_of::<cm_websocket_callbacks>() == 40);
const _: () = assert!(std::mem::size_of::<cm_http>() == 144);
const _: () = assert!(std::mem::size_of::<cm_clients>() == 48);
const _: () = assert!(std::mem::size_of::<cm_command_callbacks>() == 32);
const _: () = assert!(std::mem::size_of::<cm_commands>() == 72);
const _: () = assert!(std::mem::size_of::<cm_output_piece>() == 56);
const _: () = assert!(std::mem::size_of::<cm_output_filter_callbacks>() == 24);
const _: () = assert!(std::mem::size_of::<cm_channel_callbacks>() == 56);
const _: () = assert!(std::mem::size_of::<cm_channels>() == 72);
const _: () = assert!(std::mem::size_of::<cm_job_callbacks>() == 32);
const _: () = assert!(std::mem::size_of::<cm_jobs>() == 80);
const _: () = assert!(std::mem::size_of::<cm_event_callbacks>() == 32);
const _: () = assert!(std::mem::size_of::<cm_events>() == 32);
const _: () = assert!(std::mem::size_of::<cm_store>() == 112);
const _: () = assert!(std::mem::size_of::<cm_crypto>() == 64);
const _: () = assert!(std::mem::size_of::<cm_audit_callbacks>() == 24);
const _: () = assert!(std::mem::size_of::<cm_audit>() == 32);
const _: () = assert!(std::mem::size_of::<cm_metrics>() == 32);
const _: () = assert!(std::mem::size_of::<cm_executor>() == 56);
const _: () = assert!(std::mem::size_of::<cm_transfer_callbacks>() == 32);
const _: () = assert!(std::mem::size_of::<cm_client_file_callbacks>() == 24);
const _: () = assert!(std::mem::size_of::<cm_files>() == 192);
const _: () = assert!(std::mem::size_of::<cm_enrollment>() == 48);
const _: () = assert!(std::mem::size_of::<cm_private_file_callbacks>() == 24);
const _: () = assert!(std::mem::size_of::<cm_private_files>() == 32);

// helpers

/// True when the field lies inside what the owner of the table filled in, and is set: `has!(http, cm_http, respond)`.
/// `$table` is a raw pointer, `$type` what it points to.
#[macro_export]
macro_rules! has {
    ($table:expr, $type:ident, $field:ident) => {{
        let table: *const $type = $table;
        !table.is_null() && {
            let base = table as usize;
            let field = std::ptr::addr_of!((*table).$field);
            let end = field as usize - base + std::mem::size_of_val(&(*table).$field);
            (*table).head.size as usize >= end && (*table).$field.is_some()
        }
    }};
}

impl cm_head {
    /// The head of a table of this plugin's own.
    pub const fn of<Table>(revision: u32) -> cm_head {
        cm_head { size: std::mem::size_of::<Table>() as u32, revision }
    }
}

impl cm_text {
    /// Borrowed: lives as long as `text`.
    pub const fn new(text: &str) -> cm_text {
        cm_text { data: text.as_ptr() as *const c_char, size: text.len() as u64 }
    }

    /// # Safety
    /// Only during the call that brought the text.
    pub unsafe fn to_string(&self) -> String {
        cm_bytes { data: self.data as *const u8, size: self.size }.to_string()
    }
}

impl cm_bytes {
    /// Borrowed: lives as long as `bytes`.
    pub const fn new(bytes: &[u8]) -> cm_bytes {
        cm_bytes { data: bytes.as_ptr(), size: bytes.len() as u64 }
    }

    /// # Safety
    /// Only during the call that brought the bytes.
    pub unsafe fn to_vec(&self) -> Vec<u8> {
        if self.size == 0 || self.data.is_null() {
            return Vec::new();
        }
        std::slice::from_raw_parts(self.data, self.size as usize).to_vec()
    }

    /// # Safety
    /// Only during the call that brought the bytes.
    pub unsafe fn to_string(&self) -> String {
        String::from_utf8_lossy(&self.to_vec()).into_owned()
    }
}

impl cm_buffer {
    /// Writes a result into the caller's buffer, or says how much room it needs.
    pub fn put(&mut self, bytes: &[u8]) -> i32 {
        self.size = bytes.len() as u64;
        if self.size > self.capacity || self.data.is_null() {
            return if bytes.is_empty() { CM_OK } else { CM_E_TOO_SMALL };
        }
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data, bytes.len()) };
        CM_OK
    }
}

/// A result of variable size: asks again with more room while the core says that it is too small.
pub fn read(mut call: impl FnMut(&mut cm_buffer) -> i32) -> Result<Vec<u8>, i32> {
    let mut room = vec![0u8; 256];
    for _ in 0..4 {
        let mut buffer = cm_buffer { data: room.as_mut_ptr(), capacity: room.len() as u64, size: 0 };
        match call(&mut buffer) {
            CM_OK => {
                room.truncate(buffer.size as usize);
                return Ok(room);
            }
            CM_E_TOO_SMALL => room.resize(buffer.size as usize, 0),
            status => return Err(status),
        }
    }
    Err(CM_E_TOO_SMALL)
}

/// Why a call failed, on its way into a `cm_error`.
pub struct Failure {
    pub status: i32,
    pub text: String,
}

impl Failure {
    pub fn new(status: i32, text: impl Into<String>) -> Failure {
        Failure { status, text: text.into() }
    }
}

/// The barrier of every function that the core calls: no panic may cross into the core. Fills `error`, where it is given.
///
/// # Safety
/// `error` is null or points to the caller's `cm_error`.
pub unsafe fn barrier(error: *mut cm_error, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    let failure = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(Ok(())) => return CM_OK,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(CM_E_INTERNAL, "the plugin panicked"),
    };
    if !error.is_null() {
        let error = &mut *error;
        let mut end = failure.text.len().min(error.text.len());
        while !failure.text.is_char_boundary(end) {
            end -= 1;
        }
        error.status = failure.status;
        error.http_status = 0;
        error.code_size = 0;
        error.text_size = end as u32;
        error.text[..end].copy_from_slice(&failure.text.as_bytes()[..end]);
    }
    failure.status
}
