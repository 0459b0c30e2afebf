using System.Net;
using System.Net.WebSockets;
using System.Text.Json;
using Vmm.Contracts.Control;
using Vmm.LifeCycle;

namespace Vmm.Contracts.Rest;

/// <summary>VMs: their specs, their lives, what they use.</summary>
public static class VmRequests
{
    /// <summary>All VMs.</summary>
    public static Task<VmList> ListAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "vms", null, RestJson.Default.VmList, cancellation);

    /// <summary>One VM.</summary>
    public static Task<VmInfo> ShowAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name), null, RestJson.Default.VmInfo, cancellation);

    /// <summary>Creates a VM from a YAML spec; <paramref name="folder"/> is what relative paths in it are relative to.</summary>
    public static Task<VmInfo> CreateAsync(this VmmClient client, string yaml, string folder, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post, "vms?folder=" + Uri.EscapeDataString(folder), yaml, RestJson.Default.VmInfo, cancellation);

    /// <summary>
    /// Replaces the spec of a VM that does not run, when its revision is still <paramref name="revision"/> (null: whatever it is).
    /// </summary>
    public static Task<VmInfo> ReplaceAsync(
        this VmmClient client, string name, string yaml, string folder, long? revision, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Put,
            VmmClient.Vm(name) + "?folder=" + Uri.EscapeDataString(folder),
            yaml,
            RestJson.Default.VmInfo,
            cancellation,
            revision);

    /// <summary>Forgets a VM that does not run.</summary>
    public static Task DeleteAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, VmmClient.Vm(name), null, cancellation);

    /// <summary>The spec as it was given.</summary>
    public static Task<string> SpecAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskTextAsync(VmmClient.Vm(name) + "/spec", cancellation);

    /// <summary>Does one of <c>start stop pause resume power-button wake</c> and answers when it is done.</summary>
    public static Task<VmInfo> DoAsync(this VmmClient client, string name, string verb, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, VmmClient.Vm(name) + "/" + verb, null, RestJson.Default.VmInfo, cancellation);

    /// <summary>
    /// Starts a VM. Answers with the VM when it runs within <paramref name="wait"/> (whole seconds, at most a minute), else with the job
    /// that goes on with the start: to take hundreds of GiB of huge pages takes minutes.
    /// </summary>
    public static async Task<(VmInfo? Vm, JobInfo? Job)> StartAsync(
        this VmmClient client, string name, TimeSpan wait, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Post, VmmClient.Vm(name) + "/start");
        // RFC 7240, sections 4.1 and 4.3
        request.Headers.Add("Prefer", FormattableString.Invariant($"respond-async, wait={(int)wait.TotalSeconds}"));
        using HttpResponseMessage response = await client.SendAsync(
            request, HttpCompletionOption.ResponseContentRead, cancellation).ConfigureAwait(false);
        return response.StatusCode == HttpStatusCode.Accepted
            ? (null, await client.ReadAsync(response, RestJson.Default.JobInfo, cancellation).ConfigureAwait(false))
            : (await client.ReadAsync(response, RestJson.Default.VmInfo, cancellation).ConfigureAwait(false), null);
    }

    /// <summary>Presses the power button, waits so long for the guest, then pulls the plug.</summary>
    public static Task<VmInfo> StopAsync(this VmmClient client, string name, TimeSpan graceful, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, Stop(name, graceful), null, RestJson.Default.VmInfo, cancellation);

    /// <summary>Presses the power button and answers at once with the job that waits for the guest and then pulls the plug.</summary>
    public static async Task<JobInfo> BeginStopAsync(
        this VmmClient client, string name, TimeSpan graceful, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Post, Stop(name, graceful));
        request.Headers.Add("Prefer", "respond-async"); // RFC 7240, section 4.1
        using HttpResponseMessage response = await client.SendAsync(
            request, HttpCompletionOption.ResponseContentRead, cancellation).ConfigureAwait(false);
        return await client.ReadAsync(response, RestJson.Default.JobInfo, cancellation).ConfigureAwait(false);
    }

    /// <summary>Saves a VM into a folder of the daemon's host; the job is done when it is saved and its worker is gone.</summary>
    public static Task<JobInfo> SaveAsync(this VmmClient client, string name, string folder, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, VmmClient.Vm(name) + "/save", Folder(folder), RestJson.Default.JobInfo, cancellation);

    /// <summary>Goes on with a saved VM; the job is done when it runs.</summary>
    public static Task<JobInfo> RestoreAsync(this VmmClient client, string folder, CancellationToken cancellation) =>
        client.RestoreAsync(new RestoreRequest(folder), cancellation);

    /// <summary>Goes on with a saved VM; the job is done when it runs.</summary>
    public static Task<JobInfo> RestoreAsync(this VmmClient client, RestoreRequest wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post, "restore", JsonSerializer.Serialize(wish, RestJson.Default.RestoreRequest), RestJson.Default.JobInfo,
            cancellation);

    /// <summary>Counters of a running VM.</summary>
    public static Task<WorkerStats> StatsAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/stats", null, RestJson.Default.WorkerStats, cancellation);

    /// <summary>Every unit of a running VM's machine, and its phase.</summary>
    public static Task<UnitList> UnitsAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/units", null, RestJson.Default.UnitList, cancellation);

    /// <summary>What the standard agent says of the guest of a running VM.</summary>
    public static Task<GuestFacts> GuestAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/guest", null, RestJson.Default.GuestFacts, cancellation);

    /// <summary>Carries out a command in the guest of a running VM.</summary>
    public static Task<GuestExecResult> ExecAsync(this VmmClient client, string name, GuestExecWish wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post, VmmClient.Vm(name) + "/exec", JsonSerializer.Serialize(wish, RestJson.Default.GuestExecWish),
            RestJson.Default.GuestExecResult, cancellation);

    /// <summary>The guest agent of a running VM.</summary>
    public static Task<GuestAgentInfo> AgentAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/agent", null, RestJson.Default.GuestAgentInfo, cancellation);

    /// <summary>The memory of a running VM.</summary>
    public static Task<VmMemory> MemoryAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/memory", null, RestJson.Default.VmMemory, cancellation);

    /// <summary>
    /// Changes what memory a running VM shall have, and waits at most <paramref name="patience"/> for the guest; the answer says how far it
    /// came.
    /// </summary>
    public static Task<VmMemory> ChangeMemoryAsync(
        this VmmClient client, string name, MemoryWish wish, TimeSpan patience, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Put,
            FormattableString.Invariant($"{VmmClient.Vm(name)}/memory?timeout={(int)patience.TotalSeconds}"),
            JsonSerializer.Serialize(wish, RestJson.Default.MemoryWish),
            RestJson.Default.VmMemory,
            cancellation);

    /// <summary>A VM's time on host CPUs.</summary>
    public static Task<VmCpu> CpuAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/cpu", null, RestJson.Default.VmCpu, cancellation);

    /// <summary>
    /// Changes a running VM's time on host CPUs until its next start, which takes what the spec says; what is null is not limited.
    /// </summary>
    public static Task<VmCpu> LimitCpuAsync(
        this VmmClient client, string name, CpuLimits limits, CancellationToken cancellation, long? revision = null) =>
        client.AskAsync(
            HttpMethod.Put,
            VmmClient.Vm(name) + "/cpu",
            JsonSerializer.Serialize(limits, RestJson.Default.CpuLimits),
            RestJson.Default.VmCpu,
            cancellation,
            revision);

    /// <summary>
    /// A running VM's console: binary messages both ways; a text message, a <see cref="ConsoleSize"/>, tells the size of the terminal.
    /// </summary>
    public static async Task<WebSocket> ConsoleAsync(this VmmClient client, string name, CancellationToken cancellation)
    {
        _ = await client.ShowAsync(name, cancellation).ConfigureAwait(false); // an unknown VM is a clear error, a failed upgrade is not
        try
        {
            return await client.ConnectAsync(VmmClient.Vm(name) + "/console", cancellation).ConfigureAwait(false);
        }
        catch (WebSocketException e)
        {
            VmState state = (await client.ShowAsync(name, cancellation).ConfigureAwait(false)).State;
            throw new VmmApiException("console-refused", state.IsUp() || state is VmState.Crashed
                ? $"{name}: the daemon gave no console: {e.Message}"
                : $"{name} has no console now: it is {state.Word()}: start it with 'vmmctl vm start {name}'", e);
        }
    }

    private static string Stop(string name, TimeSpan graceful) =>
        FormattableString.Invariant($"{VmmClient.Vm(name)}/stop?graceful={(int)graceful.TotalSeconds}");

    private static string Folder(string folder) =>
        JsonSerializer.Serialize(new SavedFolderRequest(folder), RestJson.Default.SavedFolderRequest);
}
