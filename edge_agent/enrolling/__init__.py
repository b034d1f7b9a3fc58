"""How an agent gets into a network: what is asked (`asking`), which way (`ways`), and what is kept (`keeping`)."""
