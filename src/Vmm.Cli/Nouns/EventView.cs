using System.CommandLine;
using System.Text.Json;
using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl events</c> and <c>vmmctl vm logs</c>: what happened, one line each; JSON is one object a line.</summary>
internal static class EventView
{
    internal static Command Create(GlobalOptions options)
    {
        Option<long?> after = new("--after") { Description = "Begin behind the event of this number instead of now", HelpName = "id" };
        Command events = new("events", "Follow what happens in the daemon, until Ctrl-C") { after };
        Noun.Act(events, options, (session, parsed, cancellation) => FollowAsync(session, parsed.GetValue(after), null, cancellation));
        return events;
    }

    /// <summary>What the daemon remembers of one VM; then, when asked to, what happens to it.</summary>
    internal static async Task<int> LogsAsync(DaemonSession session, string name, bool follow, CancellationToken cancellation)
    {
        EventList past = await session.Client.EventsOfAsync(name, cancellation).ConfigureAwait(false);
        foreach (DaemonEvent one in past.Events)
        {
            Write(session, one);
        }

        return follow
            ? await FollowAsync(session, past.Events.Count > 0 ? past.Events[^1].Id : null, name, cancellation).ConfigureAwait(false)
            : ExitCodes.Done;
    }

    /// <summary>
    /// Prints events as they come. A stream that the daemon ends, because we were slow or it stops, is taken up again behind the last
    /// event.
    /// </summary>
    private static async Task<int> FollowAsync(DaemonSession session, long? after, string? vm, CancellationToken cancellation)
    {
        while (true)
        {
            await foreach (DaemonEvent one in session.Client.EventsAsync(after, cancellation).ConfigureAwait(false))
            {
                after = one.Id > 0 ? one.Id : after;
                if (vm is null || one.Vm.Length == 0 || string.Equals(one.Vm, vm, StringComparison.Ordinal))
                {
                    Write(session, one);
                    await session.Out.FlushAsync(cancellation).ConfigureAwait(false);
                }
            }

            await Task.Delay(TimeSpan.FromMilliseconds(500), cancellation).ConfigureAwait(false);
        }
    }

    private static void Write(DaemonSession session, DaemonEvent one)
    {
        if (session.IsJson)
        {
            session.Out.WriteLine(JsonSerializer.Serialize(one, RestJson.Default.DaemonEvent));
            return;
        }

        string what = one.State is { } state ? $"{one.Kind} {state.Word()}" : one.Kind;
        string exit = one.Exit is { } end ? $": {end.Reason}{(end.Message is { } why ? ", " + why : "")}" : "";
        session.Out.WriteLine($"{Time(one.At)}  {one.Vm,-16}  {what}{exit}{(one.Message is { } message ? ": " + message : "")}");
        foreach (string line in one.Exit?.Report ?? [])
        {
            session.Out.WriteLine("    " + line);
        }
    }
}
