//! A plugin in Rust: one route, one service, one kind of job.
//!
//!   GET /api/v1/hellorust/{name}   greets
//!   com.example.hellorust/1        greets for other plugins
//!   hellorust.count                a job that counts to ten
//!
//! Everything here runs on the plugin's own thread, except `greet`, which runs on its caller's. No panic may cross into
//! the core: every function that it calls goes through `barrier`.

use client_manager::*;
use std::os::raw::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

const fn note_size() -> usize {
    include_bytes!(env!("CM_PLUGIN_NOTE")).len()
}

/// The identity note: read from the file, without running any of this.
#[used]
#[link_section = "cm_plugin"]
static NOTE: [u8; note_size()] = *include_bytes!(env!("CM_PLUGIN_NOTE"));

/// The core's tables: they live as long as the process, and their functions are made for every thread.
struct Core {
    context: *mut cm_host_context,
    log: *const cm_log,
    http: *const cm_http,
    jobs: *const cm_jobs,
    greeting: String,
}

/// Set by `load`, never freed: what other plugins call may still look at it after `stop`.
static CORE: AtomicPtr<Core> = AtomicPtr::new(null_mut());
static STOPPED: AtomicU32 = AtomicU32::new(0);

fn core() -> Option<&'static Core> {
    unsafe { CORE.load(Ordering::Acquire).as_ref() }
}

// ---- the service ----

#[repr(C)]
struct Service {
    head: cm_head,
    greet: unsafe extern "C" fn(*mut c_void, cm_text, *mut cm_buffer) -> i32,
}

static SERVICE: Service = Service { head: cm_head::of::<Service>(1), greet };

unsafe extern "C" fn greet(_: *mut c_void, name: cm_text, result: *mut cm_buffer) -> i32 {
    if STOPPED.load(Ordering::Acquire) != 0 {
        return CM_E_GONE;
    }
    barrier(null_mut(), || {
        let core = core().ok_or_else(|| Failure::new(CM_E_STATE, "not loaded"))?;
        if name.size > 256 {
            return Err(Failure::new(CM_E_TOO_LARGE, "the name may have 256 bytes"));
        }
        let status = (*result).put(format!("{}, {}!", core.greeting, name.to_string()).as_bytes());
        if status == CM_OK { Ok(()) } else { Err(Failure::new(status, "")) }
    })
}

// ---- the route ----

unsafe extern "C" fn request(_: *mut c_void, request: u64, _: cm_bytes) {
    let core = match core() {
        Some(core) => core,
        None => return,
    };
    let http = &*core.http;
    let status = barrier(null_mut(), || {
        let get = http.request_get.ok_or_else(|| Failure::new(CM_E_UNSUPPORTED, "no request_get"))?;
        let name = read(|buffer| get(core.context, request, CM_REQUEST_PARAMETER, cm_text::new("name"), buffer))
            .map_err(|status| Failure::new(status, "no name"))?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let answer = read(|buffer| greet(null_mut(), cm_text::new(&name), buffer))
            .map_err(|status| Failure::new(status, "no greeting"))?;
        if let Some(respond) = http.respond {
            let headers = cm_text::new("content-type: text/plain; charset=utf-8");
            respond(core.context, request, 200, headers, cm_bytes::new(&answer));
        }
        Ok(())
    });
    if let (true, Some(respond)) = (status != CM_OK, http.respond_problem) {
        let detail = cm_text::new("the name may have 256 bytes");
        respond(core.context, request, 400, cm_text::new("invalid"), detail);
    }
}

// ---- the job ----

unsafe extern "C" fn run(_: *mut c_void, attempt: u64, _job: cm_text, _checkpoint: cm_bytes) {
    let core = match core() {
        Some(core) => core,
        None => return,
    };
    let jobs = &*core.jobs;
    if let Some(progress) = jobs.progress {
        for step in 1..=10 {
            progress(core.context, attempt, step * 100, cm_text::new("counting"));
        }
    }
    if let Some(log) = jobs.log {
        log(core.context, attempt, cm_text::new("counted to ten"));
    }
    if let Some(finish) = jobs.finish {
        let result = cm_text::new("{\"counted\":10}");
        finish(core.context, attempt, CM_JOB_SUCCEEDED, result, cm_text::new(""), cm_text::new(""));
    }
}

/// There is nothing to interrupt: `run` ends the attempt before it returns.
unsafe extern "C" fn cancel(_: *mut c_void, _attempt: u64) {}

// ---- the plugin ----

/// A table of the core.
unsafe fn table<Table>(host: *const cm_host, identifier: &str) -> Result<*const Table, Failure> {
    let get = (*host).interface_get.ok_or_else(|| Failure::new(CM_E_UNSUPPORTED, "no interface_get"))?;
    let mut found: *const c_void = null();
    match get((*host).context, cm_text::new(identifier), 0, &mut found, null_mut()) {
        CM_OK => Ok(found as *const Table),
        status => Err(Failure::new(status, format!("the core gave no {identifier}: {status}"))),
    }
}

fn check(status: i32, what: &str) -> Result<(), Failure> {
    if status == CM_OK { Ok(()) } else { Err(Failure::new(status, format!("{what} answered {status}"))) }
}

unsafe extern "C" fn load(_: *mut c_void, host: *const cm_host, error: *mut cm_error) -> i32 {
    barrier(error, || {
        if !has!(host, cm_host, interface_get) {
            return Err(Failure::new(CM_E_UNSUPPORTED, "a core without interface_get"));
        }
        let context = (*host).context;
        let log: *const cm_log = table(host, CM_INTERFACE_LOG)?;
        let config: *const cm_config = table(host, CM_INTERFACE_CONFIG)?;
        let services: *const cm_services = table(host, CM_INTERFACE_SERVICES)?;
        let http: *const cm_http = table(host, CM_INTERFACE_HTTP)?;
        // Where jobs are not granted, or the core has none, the rest works without.
        let jobs: *const cm_jobs = table(host, CM_INTERFACE_JOBS).unwrap_or(null());
        let has_jobs = has!(jobs, cm_jobs, kind_add)
            && has!(jobs, cm_jobs, progress)
            && has!(jobs, cm_jobs, log)
            && has!(jobs, cm_jobs, finish);
        // What is used later is looked for once, here.
        let complete = has!(log, cm_log, write)
            && has!(config, cm_config, get)
            && has!(services, cm_services, publish)
            && has!(http, cm_http, route_add)
            && has!(http, cm_http, request_get)
            && has!(http, cm_http, respond)
            && has!(http, cm_http, respond_problem);
        if !complete {
            return Err(Failure::new(CM_E_UNSUPPORTED, "the core is too old for hellorust"));
        }
        STOPPED.store(0, Ordering::Release);

        let get = (*config).get.unwrap();
        let greeting = match read(|buffer| get(context, cm_text::new("/greeting"), buffer)) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(CM_E_NOT_FOUND) => "Hello".to_string(),
            Err(status) => return Err(Failure::new(status, "the greeting cannot be read")),
        };
        CORE.store(Box::into_raw(Box::new(Core { context, log, http, jobs, greeting })), Ordering::Release);

        let name = cm_text::new("com.example.hellorust/1");
        let publish = (*services).publish.unwrap();
        check(publish(context, name, &SERVICE.head, null_mut(), null_mut()), "publish")?;

        let mut handle = CM_NO_HANDLE;
        let route = cm_route_callbacks {
            head: cm_head::of::<cm_route_callbacks>(1),
            request: Some(request),
            body: None,
            writable: None,
            gone: None,
            destroy: None,
        };
        let specification = cm_text::new(concat!(
            r#"{"method":"GET","path":"/api/v1/hellorust/{name}","right":"hellorust.read","#,
            r#""operation":{"summary":"Greets somebody.","responses":{"200":{"description":"The greeting."}}}}"#
        ));
        let add = (*http).route_add.unwrap();
        check(add(context, specification, &route, null_mut(), &mut handle, null_mut()), "route_add")?;

        if !has_jobs {
            return Ok(());
        }
        let job = cm_job_callbacks {
            head: cm_head::of::<cm_job_callbacks>(1),
            run: Some(run),
            cancel: Some(cancel),
            destroy: None,
        };
        let specification =
            cm_text::new(r#"{"name":"hellorust.count","summary":"Counts to ten.","guarantee":"idempotent"}"#);
        let add = (*jobs).kind_add.unwrap();
        check(add(context, specification, &job, null_mut(), &mut handle, null_mut()), "kind_add")
    })
}

unsafe extern "C" fn start(_: *mut c_void, error: *mut cm_error) -> i32 {
    barrier(error, || {
        if let Some(core) = core() {
            if let Some(write) = (*core.log).write {
                write(core.context, CM_LOG_INFO, cm_text::new("hellorust.started"), cm_text::new(""));
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn stop(_: *mut c_void) {
    STOPPED.store(1, Ordering::Release);
}

struct Table(cm_plugin);
unsafe impl Sync for Table {}

static PLUGIN: Table = Table(cm_plugin {
    head: cm_head::of::<cm_plugin>(1),
    context: null_mut(),
    id: concat!(env!("CM_PLUGIN_ID"), "\0").as_ptr() as *const c_char,
    version: concat!(env!("CM_PLUGIN_VERSION"), "\0").as_ptr() as *const c_char,
    load: Some(load),
    start: Some(start),
    quiesce: None,
    resume: None,
    stop: Some(stop),
});

/// The one exported symbol.
#[no_mangle]
pub extern "C" fn cm_plugin_entry(host_abi_major: u32, _host_abi_minor: u32) -> *const cm_plugin {
    if host_abi_major == CM_ABI_MAJOR { &PLUGIN.0 } else { null() }
}
