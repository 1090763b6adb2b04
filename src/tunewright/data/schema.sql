-- What people judged: prompts, completions of them, and who ranked them how. Version 1; see judgements.py.
-- Texts of prompts and completions are JSON: a string, or a list of messages ({"role": …, "content": …}).

create table prompt (
    number integer primary key,              -- the order in which they were added
    id     text not null unique,             -- of the text: the same prompt is here once
    text   text not null,
    source text not null,                    -- where it came from: file:row
    split  text,                             -- train, validation, test, or unknown
    row    text not null                     -- JSON object: the other columns of its row
);

create table completion (
    number    integer primary key,
    id        text not null unique,          -- of prompt and text: equal completions of a prompt are here once
    prompt_id text not null references prompt (id),
    text      text not null
);
create index completion_of_prompt on completion (prompt_id);

create table origin (                        -- who wrote a completion; several may have written the same. Never shown
    completion_id text not null references completion (id),
    prompt_id     text not null references prompt (id),
    name          text not null,             -- run:NAME, a base model, or human
    settings      text not null,             -- JSON object with sorted keys: how it was drawn
    unique (prompt_id, name, settings)
);
create index origin_of_completion on origin (completion_id);

create table judgement (
    id        integer primary key autoincrement, -- a number is never given out twice
    prompt_id text not null references prompt (id),
    annotator text not null,
    shown     text not null,                 -- JSON list of completion ids, in the order on the page
    ranking   text not null,                 -- JSON list of lists of completion ids: best first, ties in one list
    flags     text not null,                 -- JSON list: "both_bad", "skip"
    note      text not null,
    seconds   real,
    created   text not null,                 -- ISO 8601, UTC
    withdrawn text                           -- when it was undone; nothing is ever deleted
);
create index judgement_of_prompt on judgement (prompt_id, annotator) where withdrawn is null;
create index judgement_of_annotator on judgement (annotator, id) where withdrawn is null;

create table demonstration (                 -- what a person wrote themselves
    id        integer primary key autoincrement,
    prompt_id text not null references prompt (id),
    annotator text not null,
    text      text not null,
    based_on  text references completion (id), -- the completion that was corrected; null: written from nothing
    created   text not null,
    withdrawn text
);
create index demonstration_of_prompt on demonstration (prompt_id, annotator) where withdrawn is null;

create table claim (                         -- who has which prompt on the page now, so that two don't get the same
    annotator text not null,
    work      text not null,                 -- judge or write
    prompt_id text not null references prompt (id),
    since     real not null,                 -- seconds since 1970
    primary key (annotator, work)
);
