using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl token …</c>: access for people and programs on other machines.</summary>
internal static class TokenCommands
{
    internal static Command Create(GlobalOptions options)
    {
        Noun token = new("token", "Access tokens for https", options);
        Argument<string> name = new("name") { Description = "Who or what will use it" };
        Argument<string> which = new("token") { Description = "Name or id of the token" };
        Option<string> role = new("--role")
        {
            Description = "What it allows: viewer looks, operator also starts and stops, admin does everything",
            HelpName = "viewer|operator|admin",
            Required = true
        };
        role.AcceptOnlyFromAmong("viewer", "operator", "admin");
        Option<int> days = new("--days") { Description = "How long it is good", HelpName = "days", DefaultValueFactory = _ => 90 };
        token.Add("list", "All tokens, without their secrets", [], (session, _, cancellation) => ListAsync(session, cancellation));
        token.Add("create", "Make a token and print it, this once, on standard output", [name, role, days],
            async (session, parsed, cancellation) =>
            {
                TokenWish wish = new(parsed.GetValue(name)!, parsed.GetValue(role)!, parsed.GetValue(days));
                NewToken made = await session.Client.CreateTokenAsync(wish, cancellation).ConfigureAwait(false);
                if (!session.IsJson)
                {
                    // Not on standard output: that may go into the file for --token-file.
                    await session.Errors.WriteLineAsync($"vmmctl: {made.Info.Name} ({parsed.GetValue(role)}) is good until "
                        + $"{Time(made.Info.Expires)}; the daemon does not show it again").ConfigureAwait(false);
                }

                return session.Done(made, RestJson.Default.NewToken, made.Token);
            });
        token.Add("delete", "Revoke a token", which, async (session, wanted, cancellation) =>
        {
            TokenList all = await session.Client.TokensAsync(cancellation).ConfigureAwait(false);
            string id = all.Tokens.FirstOrDefault(one => string.Equals(one.Name, wanted, StringComparison.Ordinal))?.Id ?? wanted;
            await session.Client.DeleteTokenAsync(id, cancellation).ConfigureAwait(false);
            if (!session.IsJson)
            {
                await session.Out.WriteLineAsync($"{wanted} is revoked").ConfigureAwait(false);
            }

            return ExitCodes.Done;
        });
        return token.Command;
    }

    private static async Task<int> ListAsync(DaemonSession session, CancellationToken cancellation)
    {
        TokenList list = await session.Client.TokensAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.TokenList);
        }

        Table table = new("NAME", "ROLE", "EXPIRES", "ID");
        foreach (TokenInfo token in list.Tokens)
        {
            table.Add(token.Name, token.Role, Time(token.Expires), token.Id);
        }

        return session.Table(table);
    }
}
