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
