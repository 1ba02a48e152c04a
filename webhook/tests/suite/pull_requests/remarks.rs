//! What people write on pull requests, and who may.

use fleetwright_webhook::pull_requests::Author;

use super::*;

#[tokio::test]
async fn all_that_people_wrote_is_read_and_told_apart() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        scene.forge.inner.state.lock().page = 2;
        scene.written("one", OTHER);
        scene.upsert("ours", None).await.unwrap();
        scene.written(&"x".repeat(201), OTHER);
        scene.written("changed", OTHER);
        scene.written("our words by hand", US);
        {
            let mut held = scene.forge.inner.state.lock();
            held.comments.get_mut("7").unwrap()[3]["updated_at"] = json!("2026-01-02T03:04:07Z");
            // However the forge orders them.
            held.comments.get_mut("7").unwrap().reverse();
        }
        let remarks = scene.forges.remarks(&scene.remote, 7, NOW).await.unwrap();
        let told: Vec<_> = remarks
            .iter()
            .map(|r| {
                (
                    r.id,
                    r.author.as_ref().map(|a| (a.id, a.name.as_str())),
                    r.by_program,
                    r.edited,
                )
            })
            .collect();
        let want = [
            (1, Some((OTHER, "user6")), false, false),
            (2, Some((US, "user5")), true, false),
            (4, Some((OTHER, "user6")), false, true),
            (5, Some((US, "user5")), true, false),
        ];
        assert_eq!(told, want, "{kind:?}");
        assert_eq!(remarks[0].text, "one", "{kind:?}");
        // A part of them is none.
        scene.forge.fault(&[Fault::Cut]);
        let failed = scene.forges.remarks(&scene.remote, 7, NOW).await;
        assert!(
            matches!(failed, Err(PostError::Passing(_))),
            "{kind:?} {failed:?}"
        );
        scene.forge.inner.state.lock().page = 1;
        for n in 0..40 {
            scene.written(&format!("{n}"), OTHER);
        }
        let failed = scene.forges.remarks(&scene.remote, 7, NOW).await;
        let whole = kind == Gitea;
        assert_eq!(failed.is_ok(), whole, "{kind:?}");
    }
}

#[tokio::test]
async fn who_may_write_is_asked_of_the_forge() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        let named = |id, name: &str| Author {
            id,
            name: name.into(),
        };
        {
            let mut held = scene.forge.inner.state.lock();
            let one = |id: u64, may: bool| match kind {
                Gitlab => {
                    json!({"id": id, "state": "active", "access_level": if may { 30 } else { 20 }})
                }
                _ => json!({"permission": if may { "write" } else { "read" }, "user": {"id": id}}),
            };
            held.permissions.insert("user6".into(), one(6, true));
            held.permissions.insert("user7".into(), one(7, false));
        }
        let may = async |author: Author| {
            scene
                .forges
                .may_write(&scene.remote, &author, NOW)
                .await
                .unwrap()
        };
        assert!(may(named(6, "user6")).await, "{kind:?}");
        assert!(!may(named(7, "user7")).await, "{kind:?}");
        assert!(!may(named(8, "user8")).await, "{kind:?}: nobody knows them");
        if kind != Gitlab {
            assert!(
                !may(named(9, "user6")).await,
                "{kind:?}: the name is another's"
            );
            scene.forge.seen();
            for odd in ["", ".", "..", "user6/x", "user6?x", "ours[bot]"] {
                assert!(!may(named(6, odd)).await, "{kind:?} {odd}");
            }
            assert!(scene.forge.seen().is_empty(), "{kind:?}");
        }
        for (fault, refused) in [
            (Fault::Answer((403, &[])), true),
            (Fault::Answer((502, &[])), false),
            (Fault::Cut, false),
        ] {
            scene.forge.fault(&[fault]);
            let author = named(6, "user6");
            let failed = scene.forges.may_write(&scene.remote, &author, NOW).await;
            let error = failed.unwrap_err();
            let is_refused = matches!(error, PostError::Refused { .. });
            assert_eq!(is_refused, refused, "{kind:?} {fault:?} {error}");
        }
    }
}
