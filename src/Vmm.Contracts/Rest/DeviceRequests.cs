using System.Globalization;
using System.Text.Json;
using Vmm.Contracts.Control;

namespace Vmm.Contracts.Rest;

/// <summary>Disks and network devices of VMs.</summary>
public static class DeviceRequests
{
    /// <summary>Disks and network devices of a VM.</summary>
    public static Task<DeviceList> DevicesAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/devices", null, RestJson.Default.DeviceList, cancellation);

    /// <summary>Adds a device, also while the VM runs.</summary>
    /// <param name="client">The daemon.</param>
    /// <param name="name">The VM.</param>
    /// <param name="list"><c>disks</c> or <c>nets</c>.</param>
    /// <param name="yaml">An entry of that list of a spec.</param>
    /// <param name="stay">It is in the stored spec, too.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    public static Task<DeviceInfo> AttachAsync(
        this VmmClient client, string name, string list, string yaml, bool stay, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post,
            $"{VmmClient.Vm(name)}/{list}?persistent={(stay ? "true" : "false")}",
            yaml,
            RestJson.Default.DeviceInfo,
            cancellation);

    /// <summary>
    /// Removes a device, also while the VM runs: the guest has so long to let go of it, then it is taken (force) or stays.
    /// </summary>
    public static Task<RemovalBody> DetachAsync(
        this VmmClient client, string name, string device, TimeSpan patience, bool force, bool forGood, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Delete,
            string.Create(
                CultureInfo.InvariantCulture,
                $"{VmmClient.Vm(name)}/devices/{Uri.EscapeDataString(device)}?timeout={(int)patience.TotalSeconds}&force="
                    + $"{(force ? "true" : "false")}&persistent={(forGood ? "true" : "false")}"),
            null,
            RestJson.Default.RemovalBody,
            cancellation);

    /// <summary>
    /// Changes the rate limits of a running VM's device (<c>disk0</c>, <c>net1</c>) until its next start, which takes those of the spec.
    /// </summary>
    public static Task LimitAsync(
        this VmmClient client, string name, string device, DeviceLimits limits, CancellationToken cancellation) =>
        client.TellAsync(
            HttpMethod.Put,
            VmmClient.Vm(name) + "/devices/" + Uri.EscapeDataString(device) + "/limits",
            JsonSerializer.Serialize(limits, RestJson.Default.DeviceLimits),
            cancellation);

    /// <summary>Copies a disk of a running VM to another storage, to go on there; a job.</summary>
    public static Task<JobInfo> CopyDiskAsync(
        this VmmClient client, string name, string device, DiskCopyWish wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post,
            VmmClient.Vm(name) + "/devices/" + Uri.EscapeDataString(device) + "/copy",
            JsonSerializer.Serialize(wish, RestJson.Default.DiskCopyWish),
            RestJson.Default.JobInfo,
            cancellation);

    /// <summary>Streams a disk of a running VM: it goes on with fewer images, and the same content; a job.</summary>
    public static Task<JobInfo> StreamDiskAsync(
        this VmmClient client, string name, string device, DiskStreamWish wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post,
            VmmClient.Vm(name) + "/devices/" + Uri.EscapeDataString(device) + "/stream",
            JsonSerializer.Serialize(wish, RestJson.Default.DiskStreamWish),
            RestJson.Default.JobInfo,
            cancellation);

    /// <summary>Commits a disk of a running VM into an image of its chain, to go on there; a job.</summary>
    public static Task<JobInfo> CommitDiskAsync(
        this VmmClient client, string name, string device, DiskCommitWish wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post,
            VmmClient.Vm(name) + "/devices/" + Uri.EscapeDataString(device) + "/commit",
            JsonSerializer.Serialize(wish, RestJson.Default.DiskCommitWish),
            RestJson.Default.JobInfo,
            cancellation);

    /// <summary>
    /// Grows a disk of a VM, which may run, to so many bytes; null: looks again how large it is. A guest that runs hears of it.
    /// </summary>
    public static Task<DiskSize> ResizeDiskAsync(
        this VmmClient client, string name, string device, long? bytes, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Put,
            VmmClient.Vm(name) + "/devices/" + Uri.EscapeDataString(device) + "/size",
            JsonSerializer.Serialize(new DiskSizeWish(bytes), RestJson.Default.DiskSizeWish),
            RestJson.Default.DiskSize,
            cancellation);
}
