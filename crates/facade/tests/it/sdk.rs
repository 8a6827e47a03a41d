//! The official Python client, where `cargo xtask test` installed it.

use std::process::Command;

use crate::fixture::Served;

const SCRIPT: &str = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=2)
user = lambda text: [{"role": "user", "content": text}]

whole = client.chat.completions.with_raw_response.create(model="echo", messages=user("hello"))
assert whole.parse().choices[0].message.content == "hello"
session = whole.headers["mainstay-session"]
again = client.chat.completions.create(model="echo", messages=user("history"), extra_headers={"Mainstay-Session": session})
assert '"hello"' in again.choices[0].message.content, again

chunks = list(client.chat.completions.create(model="talker", messages=user("say one two"), stream=True, stream_options={"include_usage": True}))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two"
assert chunks[-1].usage is not None

assert client.responses.create(model="echo", input="hello").output_text == "hello"
with client.responses.stream(model="talker", input="say one two") as stream:
    kinds = [event.type for event in stream]
    assert stream.get_final_response().output_text == "one two"
assert kinds[-1] == "response.completed", kinds

assert [model.id for model in client.models.list()] == ["echo", "talker"]
try:
    client.chat.completions.create(model="echo", messages=user("fail"))
    raise SystemExit("a failed task must raise")
except openai.InternalServerError as error:
    assert "no way" in error.message, error.message
try:
    client.chat.completions.create(model="nobody", messages=user("x"))
    raise SystemExit("an unknown agent must raise")
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
"#;

#[test]
fn the_official_python_client_works() {
    let Some(python) = testkit::sdk::python("the_official_python_client_works") else {
        return;
    };
    let served = Served::start();
    let run = Command::new(python)
        .args([
            "-c",
            SCRIPT,
            &format!("http://127.0.0.1:{}/v1", served.port),
            &served.token,
        ])
        .env_remove("HTTP_PROXY")
        .env_remove("HTTPS_PROXY")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    // One task for each call that named an agent: none was retried into a second.
    let tasks = served.get("/api/v1/tasks?agent=echo").json()["items"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(tasks, 4);
}
