# Builds one plugin, in any folder: set the variables, include this file. `make` makes NAME.so, `make test` checks it.
#
#   PLUGIN    its file's name without .so
#   LANGUAGE  c, cpp, rust, swift or embedded-swift
#   SOURCES   C, C++ or Swift files; for Rust the crate's root first
#   SDK       where this file lies (found by itself)
#   BUILD, OUTPUT, PLUGIN_JSON  where things go and come from: build, NAME.so, plugin.json
#   CFLAGS, CXXFLAGS, SWIFTFLAGS, RUSTFLAGS, LDLIBS, SWIFT_MODULES (folders with module maps of your own C headers)
#
# plugin.json is the plugin's identity note; id and version are taken from it, so the two cannot differ.
SDK ?= $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
CC ?= cc
CXX ?= c++
ifeq ($(origin CC),default)
CC := cc
endif
ifeq ($(origin CXX),default)
CXX := c++
endif
SWIFTC ?= swiftc
RUSTC ?= rustc
BUILD ?= build
PLUGIN_JSON ?= plugin.json
OUTPUT ?= $(PLUGIN).so
CLIENT_MANAGER ?= $(SDK)/../bin/client-manager

json_field = $(shell sed -nE 's/^[^"]*"$(1)" *: *"([^"]*)".*/\1/p' $(PLUGIN_JSON) | head -n 1)
PLUGIN_ID := $(call json_field,id)
PLUGIN_VERSION := $(call json_field,version)
ifeq ($(PLUGIN_ID)$(PLUGIN_VERSION),)
$(error $(PLUGIN_JSON) needs "id" and "version", each on a line of its own)
endif

# One exported symbol, nothing undefined, never unmapped, read-only after relocation.
LINK_OPTIONS := -z nodelete -z defs -z relro -z now --version-script=$(SDK)/plugin.map
C_LINK := -Wl,-z,nodelete -Wl,-z,defs -Wl,-z,relro -Wl,-z,now -Wl,--version-script=$(SDK)/plugin.map
IDENTITY := -DCM_PLUGIN_ID='"$(PLUGIN_ID)"' -DCM_PLUGIN_VERSION='"$(PLUGIN_VERSION)"'
NOTE := $(BUILD)/note.o

.PHONY: all test clean
all: $(OUTPUT)

$(BUILD):
	mkdir -p $@

# The note as a C string: the JSON text with its quotes and backslashes escaped.
$(BUILD)/note.c: $(PLUGIN_JSON) | $(BUILD)
	{ echo '#include "client_manager_plugin.h"'; echo 'CM_PLUGIN_NOTE('; \
	  sed -E 's/\\/\\\\/g; s/"/\\"/g; s/^(.*)$$/  "\1\\n"/' $(PLUGIN_JSON); echo ');'; } > $@.part
	mv $@.part $@

$(NOTE): $(BUILD)/note.c
	$(CC) -std=gnu11 -O2 -fPIC -I $(SDK)/include -c $< -o $@

ifeq ($(LANGUAGE),c)
$(OUTPUT): $(SOURCES) $(NOTE) $(SDK)/include/client_manager_plugin.h
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -fPIC -fvisibility=hidden -I $(SDK)/include $(IDENTITY) $(CFLAGS) \
	  -shared $(C_LINK) $(SOURCES) $(NOTE) $(LDLIBS) -o $@
endif

ifeq ($(LANGUAGE),cpp)
# The C++ runtime is linked in and stays hidden: two plugins may bring different ones.
$(OUTPUT): $(SOURCES) $(NOTE) $(SDK)/include/client_manager_plugin.h
	$(CXX) -std=c++17 -O2 -g -Wall -Wextra -fPIC -fvisibility=hidden -fvisibility-inlines-hidden -I $(SDK)/include \
	  $(IDENTITY) $(CXXFLAGS) -shared -static-libstdc++ -static-libgcc $(C_LINK) $(SOURCES) $(NOTE) $(LDLIBS) -o $@
endif

ifeq ($(LANGUAGE),rust)
# The note's bytes, as the ABI wants them in the section: Rust includes the file.
$(BUILD)/note: $(PLUGIN_JSON) | $(BUILD)
	{ echo 'client-manager-plugin 1'; cat $(PLUGIN_JSON); } > $@

# The bindings are a crate of their own, without any other: no cargo, no registry.
$(BUILD)/libclient_manager.rlib: $(SDK)/rust/client_manager.rs | $(BUILD)
	$(RUSTC) --edition 2021 --crate-type rlib --crate-name client_manager -O $< -o $@

$(OUTPUT): $(SOURCES) $(BUILD)/note $(BUILD)/libclient_manager.rlib
	CM_PLUGIN_ID='$(PLUGIN_ID)' CM_PLUGIN_VERSION='$(PLUGIN_VERSION)' CM_PLUGIN_NOTE='$(abspath $(BUILD)/note)' \
	$(RUSTC) --edition 2021 --crate-type cdylib --crate-name plugin -O -C strip=debuginfo \
	  -C link-arg=-Wl,-z,nodelete -C link-arg=-Wl,-z,defs --extern client_manager=$(BUILD)/libclient_manager.rlib \
	  $(RUSTFLAGS) $(firstword $(SOURCES)) -o $@
endif

ifeq ($(LANGUAGE),swift)
# PluginKit and JSON are built for this plugin and this version, under module names of their own: two plugins in one
# process never share a Swift type, whatever versions of the kit they were built with.
MODULE := $(shell printf '%s' '$(PLUGIN)_$(PLUGIN_VERSION)' | tr -c 'A-Za-z0-9_' '_')
SWIFT_COMMON := -swift-version 6 -O -wmo -parse-as-library -static -I $(BUILD) -I $(SDK)/include \
  -enable-upcoming-feature ExistentialAny -enable-upcoming-feature NonisolatedNonsendingByDefault \
  -Xfrontend -disable-implicit-string-processing-module-import

$(BUILD)/$(MODULE)_JSON.swiftmodule: $(wildcard $(SDK)/swift/JSON/*.swift) | $(BUILD)
	$(SWIFTC) $(SWIFT_COMMON) -module-name $(MODULE)_JSON -emit-module -emit-module-path $@ -emit-library \
	  -o $(BUILD)/lib$(MODULE)_JSON.a $(SDK)/swift/JSON/*.swift

$(BUILD)/$(MODULE)_PluginKit.swiftmodule: $(wildcard $(SDK)/swift/PluginKit/*.swift) $(BUILD)/$(MODULE)_JSON.swiftmodule
	$(SWIFTC) $(SWIFT_COMMON) -module-name $(MODULE)_PluginKit -module-alias JSON=$(MODULE)_JSON -emit-module \
	  -emit-module-path $@ -emit-library -o $(BUILD)/lib$(MODULE)_PluginKit.a $(SDK)/swift/PluginKit/*.swift

$(BUILD)/Identity.swift: $(PLUGIN_JSON) | $(BUILD)
	printf 'let pluginID: StaticString = "%s"\nlet pluginVersion: StaticString = "%s"\n' \
	  '$(PLUGIN_ID)' '$(PLUGIN_VERSION)' > $@

# The Swift runtime is the core's, which opens it from its lib/ before it opens the plugin.
$(OUTPUT): $(SOURCES) $(BUILD)/Identity.swift $(NOTE) $(BUILD)/$(MODULE)_PluginKit.swiftmodule
	$(SWIFTC) $(filter-out -static,$(SWIFT_COMMON)) -module-name $(MODULE) \
	  -module-alias PluginKit=$(MODULE)_PluginKit -module-alias JSON=$(MODULE)_JSON \
	  $(foreach folder,$(SWIFT_MODULES),-I $(folder)) $(SWIFTFLAGS) -emit-library -no-toolchain-stdlib-rpath \
	  $(foreach option,$(LINK_OPTIONS),-Xlinker $(option)) $(SOURCES) $(BUILD)/Identity.swift $(NOTE) \
	  $(BUILD)/lib$(MODULE)_PluginKit.a $(BUILD)/lib$(MODULE)_JSON.a $(LDLIBS) -o $@
endif

ifeq ($(LANGUAGE),embedded-swift)
# Embedded Swift: no runtime at all, 40 KB, libc only. It uses the header, not PluginKit.
MODULE := $(shell printf '%s' '$(PLUGIN)_$(PLUGIN_VERSION)' | tr -c 'A-Za-z0-9_' '_')

$(BUILD)/Identity.swift: $(PLUGIN_JSON) | $(BUILD)
	printf 'let pluginID: StaticString = "%s"\nlet pluginVersion: StaticString = "%s"\n' \
	  '$(PLUGIN_ID)' '$(PLUGIN_VERSION)' > $@

$(OUTPUT): $(SOURCES) $(BUILD)/Identity.swift $(NOTE)
	$(SWIFTC) -swift-version 6 -O -wmo -parse-as-library -enable-experimental-feature Embedded -module-name $(MODULE) \
	  -I $(SDK)/include $(foreach folder,$(SWIFT_MODULES),-I $(folder)) $(SWIFTFLAGS) -Xcc -fPIC -emit-library \
	  -no-toolchain-stdlib-rpath $(foreach option,$(LINK_OPTIONS),-Xlinker $(option)) \
	  $(SOURCES) $(BUILD)/Identity.swift $(NOTE) $(LDLIBS) -o $@
endif

test: $(OUTPUT)
	$(CLIENT_MANAGER) plugin check $(OUTPUT)

clean:
	rm -rf $(BUILD) $(OUTPUT)
